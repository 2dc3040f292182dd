"""Trained runs as programs that need no vocprep: the formats ``onnx`` and ``torch-export``.

``source`` is what a run gives; ``heads_program`` and ``pixels_program`` are the modules that are
exported, ``program`` how torch traces them; ``examples`` and ``checking`` compare each file with
predictions; ``onnx_files`` and ``torch_files`` write the two formats.
"""
