"""Networks that are not built in: of libraries, or of a file of one's own.

``kinds`` has the table of them. ``maps`` is what they have in common: the maps of a network's
layers, and how many cells of a map lie in each patch. ``timm_models`` and ``torchvision_models``
find and make the models of the two libraries. ``own_file`` runs a Python file of one's own, whose
network's maps ``own_maps`` takes. ``pretrained`` knows where libraries publish weights; ``folding``
folds batch norms.
"""
