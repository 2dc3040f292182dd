"""The TFDet heads over cached embeddings: model, runs, training, scoring, prediction.

Belongs here: everything that is trained, and what uses it. ``model`` is the network, ``runs`` what
a training leaves on disk, ``training`` and ``scoring`` the passes over a split. ``predict_image``
is the prediction for one image as an array, ``predict`` the verb over image files.
"""
