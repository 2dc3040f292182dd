"""The folder of a run: one training writes it, begins a run in it or resumes the one it holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vocprep.errors import UsageError
from vocprep.features.components import COMPONENTS_FILE, Components
from vocprep.features.weights import WeightsOrigin
from vocprep.files.locking import LOCK, file_lock
from vocprep.files.names import TEMPORARY_PREFIX, is_clutter
from vocprep.files.reading import read_json
from vocprep.files.writing import check_output_folder, remove_path, write_atomic, write_json
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.options import DEFAULT_PRESET, STREAMING_LANES, TrainOptions
from vocprep.heads.runs.presets import (
    OPTIONS_FILE,
    differing_options,
    load_options,
    options_toml,
)
from vocprep.heads.runs.run import (
    CONFIG_FILE,
    CURVES_FILE,
    MAX_CONFIG_BYTES,
    OLD_OPTIONS_FILE,
    RUN_FILES,
    WEIGHTS_FILE,
    check_size,
    is_of,
    read_config,
    several_runs,
)
from vocprep.heads.runs.state import CHECKPOINT_FILE, MODEL_FILE
from vocprep.heads.runs.tracking.events import EVENTS_DIR
from vocprep.recipe import differing_fields, joined_differences
from vocprep.storage.places import local_path


@contextmanager
def hold_folder(run_dir: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Hold the run folder's file lock, so that one training at a time writes there.

    Raises UsageError at once while another one does, or where the folder holds other files. A
    folder in which nothing was begun is left as it was found.
    """
    check_output_folder(run_dir)
    _refuse_foreign_files(run_dir, _names_in(run_dir))
    was_there, had_lock = run_dir.exists(), (run_dir / LOCK).exists()
    busy = f"{run_dir}: another training writes there; wait until it ends or choose another folder"
    with file_lock(run_dir / LOCK, busy=busy, note=note):
        try:
            yield
        finally:
            if not had_lock and {path.name for path in run_dir.iterdir()} <= {LOCK}:
                (run_dir / LOCK).unlink(missing_ok=True)
                if not was_there:
                    run_dir.rmdir()


def options_for(
    run_dir: str | Path,
    preset: str | Path | None = None,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> TrainOptions:
    """Return the options to train into a folder with: those of ``load_options``.

    Without a preset they are those of ``DEFAULT_PRESET``, or, where ``overrides`` have ``resume``,
    those of the run that the folder holds.
    """
    run_dir = local_path(run_dir)
    resumes = (overrides or {}).get("resume", False)
    if preset is None and resumes and holds_run(run_dir):
        return load_options(read_config(run_dir).options, settings, overrides)
    return load_options(preset or DEFAULT_PRESET, settings, overrides)


def decide_lanes(run_dir: Path, options: TrainOptions, shards: int) -> TrainOptions:
    """Return options with the number of lanes, for a train split of so many shards."""
    if options.lanes is not None:
        return options
    lanes = min(STREAMING_LANES, shards) if options.mode == "streaming" else 1
    if options.resume and holds_run(run_dir):
        lanes = read_config(run_dir).options.lanes or lanes
    return replace(options, lanes=lanes)


def holds_run(run_dir: Path) -> bool:
    """Return whether a training in this folder has left weights or a checkpoint."""
    return _is_ours(run_dir) and any(
        os.path.lexists(run_dir / name) for name in (MODEL_FILE, CHECKPOINT_FILE)
    )


def is_finished(run_dir: Path) -> bool:
    """Return whether a training in this folder has ended with its last epoch."""
    return (run_dir / CURVES_FILE).is_file() and not (run_dir / CHECKPOINT_FILE).exists()


def check_folder(run_dir: Path, config: RunConfig) -> RunConfig | None:
    """Return the configuration of the run to resume in a folder, None where one is to be begun.

    A training that ended before its first checkpoint left no run. Raises UsageError when the folder
    holds other files, a run and neither ``overwrite`` nor ``resume`` is on, or, with ``resume``, a
    run of other data or other options. Changes nothing.
    """
    names = _names_in(run_dir)
    _refuse_foreign_files(run_dir, names)
    if not holds_run(run_dir) or config.options.overwrite:
        return None
    # As in this training's options: the run may have begun without ``resume``.
    if config.options.resume:
        return _resumed(run_dir, config)
    found = ", ".join(name for name in RUN_FILES if name in names)
    raise UsageError(
        f"{run_dir}: expected a folder without a run, found {found}; choose another folder, pass "
        "--resume to go on with it or --overwrite to replace it"
    )


def check_folder_of_several(out: Path, option: str) -> None:
    """Raise UsageError unless a folder may hold several runs that differ in an option alone."""
    check_output_folder(out)
    if (out / CONFIG_FILE).exists():
        raise UsageError(
            f"{out}: expected a folder for several runs, found one run; choose another folder"
        )
    others = [run.name for run in several_runs(out) if not is_of(run, option)]
    if others:
        raise UsageError(
            f"{out}: expected a folder for runs that differ in their {option}, found {others[0]}; "
            "choose another folder"
        )


def begin_or_resume(
    run_dir: Path,
    config: RunConfig,
    origin: WeightsOrigin | None,
    components: Components | None = None,
) -> RunConfig:
    """Begin a run in a folder, or resume the one that it holds, and return its configuration.

    ``origin`` and ``components`` are what ``predict`` needs of the shards' embeddings.
    Raises what ``check_folder`` raises, changing nothing.
    """
    resumed = check_folder(run_dir, config)
    if run_dir.exists():
        for path in run_dir.glob(f"{TEMPORARY_PREFIX}*"):
            remove_path(path)
    if resumed is None:
        _begin(run_dir, config)
    if origin is not None:
        origin.write(run_dir / WEIGHTS_FILE)
    if components is not None:
        write_atomic(run_dir / COMPONENTS_FILE, components.to_bytes())
    return resumed or config


def _names_in(run_dir: Path) -> set[str]:
    """Return the names in a folder, without a training's lock, its unfinished files and clutter."""
    names = {path.name for path in run_dir.iterdir()} if run_dir.exists() else set()
    names = {name for name in names if name != LOCK and not name.startswith(TEMPORARY_PREFIX)}
    return {name for name in names if not is_clutter(name)}


def _refuse_foreign_files(run_dir: Path, names: set[str]) -> None:
    """Raise UsageError when a folder's files are not those of a run."""
    if CONFIG_FILE in names and not _is_ours(run_dir):
        raise UsageError(
            f"{run_dir / CONFIG_FILE}: expected one that `vocprep train` wrote, found another or a "
            "damaged one, and so nothing here is replaced; choose another folder"
        )
    if runs := several_runs(run_dir):
        raise UsageError(
            f"{run_dir}: expected a folder for one run, found several in it ({runs[0].name} and "
            "on); give --seeds or --sweep to train those, or choose another folder"
        )
    if names and CONFIG_FILE not in names:
        raise UsageError(
            f"{run_dir}: expected a new or empty folder for the run, found "
            f"{min(names, key=lambda name: (name.startswith('.'), name))!r} in it; choose another"
        )


def _is_ours(run_dir: Path) -> bool:
    """Return whether a training has written the folder's ``run.json``."""
    try:
        value = read_json(run_dir / CONFIG_FILE, MAX_CONFIG_BYTES)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and "run_format_version" in value


def _begin(run_dir: Path, config: RunConfig) -> None:
    """Remove an earlier run's files and write those that a run begins with.

    ``run.json`` is there at every moment: without it, the files of a training that is killed here
    would count as foreign ones in the next.
    """
    names = _names_in(run_dir)
    files = [run_dir / name for name in RUN_FILES if name in names and name != CONFIG_FILE]
    if CONFIG_FILE in names:
        files += (run_dir / EVENTS_DIR).glob("events.out.tfevents.*")
    for path in files:
        path.unlink()
    write_json(run_dir / CONFIG_FILE, config.to_json())
    write_atomic(run_dir / OPTIONS_FILE, options_toml(config.options).encode())


def _resumed(run_dir: Path, config: RunConfig) -> RunConfig:
    """Return the configuration of the folder's run; UsageError where data or options differ."""
    begun = read_config(run_dir)
    for name in (MODEL_FILE, CHECKPOINT_FILE):
        if (run_dir / name).is_file():
            check_size(run_dir / name, begun)
    options = differing_options(begun.options, config.options)
    data: list[str] = []
    for name in ("content_id", "source_id", "recipe"):
        one, other = ({name: side.to_json()[name]} for side in (begun, config))
        data += differing_fields(one, other)
    data += differing_fields(
        {"embedding_dim": begun.heads.embedding_dim}, {"embedding_dim": config.heads.embedding_dim}
    )
    if options or data:
        options_file = OPTIONS_FILE if begun.format_version > 3 else OLD_OPTIONS_FILE
        advice = ["name the shards that the run was trained on"] if data else []
        if options:
            own = f"the run's own are in {run_dir / options_file}"
            advice.append(f"leave the differing options out ({own})")
        raise UsageError(
            f"{run_dir}: expected a run of this data and these options to resume, there and here: "
            f"{joined_differences([*options, *data])}; {' and '.join(advice)}, or choose another "
            "folder"
        )
    return begun
