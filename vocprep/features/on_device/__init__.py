"""What the device that embeds does beside the network, so that a CPU need not.

``placing`` brings decoded pictures to their patch grids, and ``resizing`` resizes them there in the
bits of the CPU's geometry. ``nvjpeg`` decodes on a GPU. ``graphs`` starts the passes of a network
on a GPU at once.
"""
