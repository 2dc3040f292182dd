"""What a layout's function finds: where pictures, masks, class lists and split lists are."""

from __future__ import annotations

from dataclasses import dataclass

from vocprep.dataset_manifest import IMAGE_SUFFIXES, SPLIT_FIELD

JPEG_SUFFIXES = (".jpg", ".jpeg")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".mat")


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """The names of classes, as a file gives them."""

    path: str
    """Below the data dir."""
    names: tuple[str, ...]
    """In the order of the file."""
    first: int | None = None
    """Id of the first name; None where the file does not say it."""
    ids: tuple[int, ...] = ()
    """Ids of the names, where the file has them; else they are counted from ``first``."""
    colours: tuple[str, ...] = ()
    """``#rrggbb`` of the names, where the file has them."""

    def by_id(self, first: int) -> dict[int, str]:
        """Return names by id, where ids are counted from ``first`` unless the file has them."""
        return dict(zip(self.ids or range(first, first + len(self.names)), self.names, strict=True))

    @property
    def ids_of_colours(self) -> dict[str, int]:
        """Ids by colour; empty where the file has no colours."""
        ids = self.ids or range(len(self.colours))
        return dict(zip(self.colours, ids, strict=True)) if self.colours else {}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A layout, and where its parts are: paths below the data dir."""

    layout: str
    """In words."""
    images: str
    """Folder of the pictures, ``"."`` for the data dir itself; may hold ``{split}``."""
    labels: str
    """Folder of the masks; may hold ``{split}``."""
    label_suffix: str = ".png"
    """What follows the image id in the name of a mask."""
    image_suffixes: tuple[str, ...] = ()
    """Suffixes of pictures, where others in the folder are none; any where empty."""
    splits: tuple[str, ...] = ()
    """Names of splits that ``{split}`` stands for."""
    lists: tuple[str, ...] = ()
    """Files that list the pictures of a split."""
    class_list: ClassList | None = None
    annotations: str = ""
    """COCO's JSON of panoptic segments; may hold ``{split}``."""
    void: int | None = None
    """Where the layout defines which id is void, whether it occurs or not."""
    shipped_classes: str = ""
    """Shipped label space whose names the ids have."""
    notes: tuple[str, ...] = ()

    @property
    def is_split_by_folders(self) -> bool:
        """Whether each split has folders of its own."""
        return SPLIT_FIELD in self.images


def of_split(path: str, split: str) -> str:
    """Return the path of one split.

    >>> of_split("{split}annot", "train")
    'trainannot'
    """
    return path.replace(SPLIT_FIELD, split)


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name, or of the end of one, in small letters.

    >>> suffix_of("a.b.JPG"), suffix_of(".png"), suffix_of("README")
    ('.jpg', '.png', '')
    """
    _, dot, end = name.rpartition("/")[2].rpartition(".")
    return f"{dot}{end}".lower() if dot else ""


def stem_of(path: str) -> str:
    """Return a path without the suffix of its last part.

    >>> stem_of("a.b/c.d.png"), stem_of("a.b/c")
    ('a.b/c.d', 'a.b/c')
    """
    dot = path.rfind(".")
    return path[:dot] if dot > path.rfind("/") + 1 else path


def is_picture(name: str) -> bool:
    """Return whether a file's name is that of a picture."""
    return suffix_of(name) in IMAGE_SUFFIXES


def is_mask(name: str) -> bool:
    """Return whether a file's name can be that of a mask."""
    return suffix_of(name) in MASK_SUFFIXES
