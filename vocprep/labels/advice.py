"""What to do about label files that hold something else than label ids: one sentence per case."""

from __future__ import annotations

from collections.abc import Sequence

from vocprep.formats.kinds import advise, describe_kind
from vocprep.formats.png import COLOUR, COLOUR_ALPHA, GREY_ALPHA, Header
from vocprep.storage.places import Place
from vocprep.validation import printable

VARIABLE = "LabelMap"
"""The variable of a .mat file that holds its label map."""
_SAVE = f"save(file, '{VARIABLE}', '-v7')"
"""MATLAB's command that writes what is read."""
_LONGEST_NAME = 63
"""Of a variable, in MATLAB."""
_MOST_NAMES = 5
_SAVE_IN_PYTHON = f"scipy.io.savemat(file, {{'{VARIABLE}': ids.astype('uint16')}})"
_MANIFEST = "in the manifest of the dataset"
_IDS_OF = {
    "struct": "{}.Segmentation",
    "object": "{}.Segmentation",
    "cell": "{}{{1}}",
    "sparse": "full({})",
}
"""Where the label ids of a variable are, by its class where that is no full matrix."""
_LOSSY = (
    "its compression has changed the ids, so that converting it does not help: export the label "
    "map again, as PNG"
)
_AS_GREY = "save its ids as PNG of 8-bit or 16-bit grey"
_INSTEAD_OF_PNG = {
    "a JPEG picture": _LOSSY,
    "a WebP picture": _LOSSY,
    "a GIF picture": _AS_GREY,
    "a BMP picture": _AS_GREY,
    "a TIFF picture": f'name it .tif and set label_kind = "tiff" {_MANIFEST}',
    "a NumPy array": f'name it .npy and set label_kind = "npy" {_MANIFEST}',
    "a MATLAB 5 file": f'name it .mat and set label_kind = "mat" {_MANIFEST}',
    "a PNG picture": f'name it .png and set label_kind = "png" {_MANIFEST}',
}
_INSTEAD_OF_MAT = {
    **_INSTEAD_OF_PNG,
    "an HDF5 file": f"write the label ids that it holds with {_SAVE_IN_PYTHON}",
    "a MATLAB 4 file": f"save it again in MATLAB: {VARIABLE} = uint16({VARIABLE}); {_SAVE}",
}


def no_png(data: bytes) -> str:
    """Describe a file in the place of a PNG label map."""
    what = describe_kind(data)
    return f"{what}, where a PNG label map is expected; {advise(data, _INSTEAD_OF_PNG)}"


def no_npy(data: bytes) -> str:
    """Describe a file in the place of an NPY label map."""
    what = describe_kind(data)
    return f"{what}, where an NPY label map is expected; {advise(data, _INSTEAD_OF_PNG)}"


def no_tiff(data: bytes) -> str:
    """Describe a file in the place of a TIFF label map."""
    what = describe_kind(data)
    return f"{what}, where a TIFF label map is expected; {advise(data, _INSTEAD_OF_PNG)}"


def not_flat(what: str, shape: Sequence[int]) -> str:
    """Describe an array that is no matrix with pixels."""
    found = "×".join(str(size) for size in shape[:_MOST_NAMES]) or "()"
    return f"{what} of the shape {found}, where [H, W] is expected; save one plane of label ids"


def no_mat(data: bytes) -> str:
    """Describe a file in the place of a MATLAB 5 label map."""
    what = describe_kind(data)
    return f"{what}, where a MATLAB 5 label map is expected; {advise(data, _INSTEAD_OF_MAT)}"


def no_ids(header: Header) -> str | None:
    """Describe a PNG whose pixels are no label ids; None where no such PNG exists."""
    colour = header.colour
    if colour in (COLOUR, COLOUR_ALPHA):
        return (
            f"a colour mask ({'RGB' if colour == COLOUR else 'RGBA'}), where label ids are "
            f'expected; set label_kind = "colours" and give the id of each colour in '
            f"label_colours, {_MANIFEST}"
        )
    if colour == GREY_ALPHA:
        return (
            "grey with an alpha channel, where label ids alone are expected; save it without alpha "
            "as 8-bit or 16-bit grey"
        )
    return None


def too_large(width: int, height: int, most: int) -> str:
    """Describe a label map of more pixels than are read."""
    return (
        f"label map of {width}×{height} pixels: expected at most {most:,}; scale it and its "
        "picture down"
    )


def other_size(
    label_map: tuple[Place, tuple[int, ...]], picture: tuple[Place, tuple[int, ...]]
) -> str:
    """Describe a label map whose size is not its picture's: of each the path, and (H, W)."""
    (path, (height, width)), (picture_path, (expected_height, expected_width)) = label_map, picture
    return (
        f"{path}: label map of {width}×{height} pixels: expected "
        f"{expected_width}×{expected_height} as its picture {picture_path}"
    )


def fit_to_picture(*, is_turned: bool) -> str:
    """Return what to do about a label map of another size than its picture.

    ``is_turned`` is of sides that are swapped, as the picture's orientation swaps them.
    """
    if is_turned:
        return (
            "it fits the upright picture, since the picture's metadata state an orientation: store "
            "the picture upright, or rotate the label map to the stored pixels"
        )
    return "bring one of them to the other's size, a label map by nearest neighbour"


def hdf5_mat() -> str:
    """Describe a file of MATLAB 7.3, whose matrices HDF5 holds column by column."""
    return (
        f"a MATLAB 7.3 file (HDF5), which is not read; save it again in MATLAB with {_SAVE}, or "
        f"in Python: ids = h5py.File(old)['{VARIABLE}'][()].T; {_SAVE_IN_PYTHON}"
    )


def other_type(class_name: str, name: str, *, is_number: bool) -> str:
    """Describe a variable of the right name and another type."""
    if not is_number:
        save = f"save that matrix under this name: {_save(name)}"
        if class_name in _IDS_OF:
            save = _save_ids_of(name, class_name, name)
        return (
            f"{name} is of type {class_name}, where a real uint16 matrix [H, W] of label ids "
            f"is expected; {save}"
        )
    return (
        f"{name} is of type {class_name}, where uint16 is expected; set label_variable = "
        f'"{name}" {_MANIFEST}, which reads numbers of any type, or convert it: {name} = '
        f"uint16({name}); {_save(name)}, or in Python scipy.io.savemat(file, {{'{name}': "
        f"{name}.astype('uint16')}})"
    )


def other_shape(shape: Sequence[int], name: str) -> str:
    """Describe a variable of the right name that is no matrix with pixels."""
    found = f"{name} has the shape {'×'.join(str(size) for size in shape[:_MOST_NAMES])}"
    if len(shape) > 2:
        plane = f"{name} = uint16({name}(:, :, 1)); {_save(name)}"
        return f"{found}, where a matrix [H, W] is expected; save one plane of ids, e.g. {plane}"
    return f"{found}, where two sizes above 0 are expected; replace it by a sound copy"


def other_variables(names: Sequence[str], class_name: str, wanted: str) -> str:
    """Describe a file without a label map by its variables' names, and the class of the first."""
    shown = ", ".join(printable(repr(name[:_LONGEST_NAME])) for name in names[:_MOST_NAMES])
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    only = names[0] if len(names) == 1 and names[0].isascii() and names[0].isidentifier() else "…"
    if only != "…" and class_name in _IDS_OF:
        found = f"{shown}, which is of type {class_name}"
        return f"no variable {wanted}, found {found}; {_save_ids_of(only, class_name, wanted)}"
    return (
        f"no variable {wanted}, found {shown}{more}; name the one with the label ids by "
        f'label_variable = "{only[:_LONGEST_NAME]}" {_MANIFEST}, or save it under that name: '
        f"{wanted} = uint16({only[:_LONGEST_NAME]}); {_save(wanted)}"
    )


def _save(name: str) -> str:
    """Return MATLAB's command that writes a variable as it is read."""
    return _SAVE.replace(VARIABLE, name)


def _save_ids_of(name: str, class_name: str, wanted: str) -> str:
    """Return how to save the label ids that a struct, an object, a cell or a sparse array holds."""
    ids = _IDS_OF[class_name].format(name[:_LONGEST_NAME])
    what = "its field with the" if ids.endswith(".Segmentation") else "its"
    return f"save {what} label ids, e.g. {wanted} = uint16({ids}); {_save(wanted)}"


def too_many_variables(most: int, wanted: str) -> str:
    """Describe a file of so many variables that the label map is not looked for any further."""
    return (
        f"no variable {wanted} among its first {most:,} variables; save it alone: {_save(wanted)}"
    )
