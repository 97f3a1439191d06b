"""`medcli features`: what a network sees in images, as a file, as a plot, and as nearest images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import ArchitectureOrRun, Flags
from medcli.cli.output import Output
from medcli.errors import ExitCode, UsageProblem
from medcli.settings.commands import FIXED_BY_RUN, OF_WEIGHTS

if TYPE_CHECKING:
    from medcli.data.dataset import DataSet
    from medcli.explain.features_session import Network, Seen
    from medcli.settings.resolve import Resolved

__all__ = ["features"]


def features(source: ArchitectureOrRun, flags: Flags) -> ExitCode | None:
    """Write what a network sees in each image, draw it, and find the images that look most alike to it.

    The features are those that the classifier reads: the backbone's pooled output. A file of them (`--out`, .npz or
    .csv, default `features.npz`) has identifiers, splits, patients, labels and features. `--plot` draws them in two
    dimensions by t-SNE or PCA, `--neighbours IMAGE` shows the nearest images with their cosine distances; these
    pictures lie beside the file, or alone at `--out FILE.png`. A run without `--data` looks at the data it was trained
    on. Features are kept in a cache, so that a second look is quick.

    Examples:
        medcli features runs/NAME
        medcli features runs/NAME --data xrays/ --plot tsne --out xrays.csv
        medcli features runs/NAME --data xrays/ --neighbours a.png --out alike.png
        medcli features deit_tiny_patch16_224 --weights deit.safetensors --data breastmnist.npz --plot pca
    """
    from medcli.explain.features_session import look_at, neighbours_of, query_of
    from medcli.settings.groups import ComputeSettings, DataSettings, FeatureSettings
    from medcli.settings.resolve import resolve

    settings = flags.output()
    output = Output(settings, "features")
    resolved = resolve("features", flags.given)
    wanted, compute = resolved.group(FeatureSettings), resolved.group(ComputeSettings)
    files = _files(settings.out, wanted, settings.overwrite)
    network, dataset = _network(source, resolved, output)
    for note in dataset.notes:
        output.note(f"note: {note}")
    panels = _panels(dataset, resolved, wanted)
    window = None if resolved.origin("window").layer == "default" else resolved.values["window"]
    query = query_of(wanted.neighbours, network, window) if wanted.neighbours else None
    seen = look_at(network, dataset, compute, resolved.group(DataSettings), output)
    for name, reason in seen.skipped:
        output.warn(f"left out {name}: {reason}")
    if seen.cached:
        output.note("features were found in the cache")
    embeddings = seen.embeddings
    result: dict[str, Any] = {
        "network": network.name,
        "images": len(embeddings),
        "dimensions": int(embeddings.features.shape[1]),
        "cached": seen.cached,
        "files": {key: str(path) for key, path in files.items()},
    }
    parts = []
    if "embeddings" in files:
        from medcli.explain.embeddings import write_embeddings

        write_embeddings(files["embeddings"], embeddings)
        parts.append(
            f"{len(embeddings)} images × {embeddings.features.shape[1]} features written to {files['embeddings']}"
        )
    if wanted.plot:
        from medcli.explain.scatter import draw_scatter, project

        projection = project(embeddings.features, wanted.plot, seed=compute.seed)
        heading = f"{'t-SNE' if wanted.plot == 'tsne' else 'PCA'} of {network.name} · {dataset.name}"
        draw_scatter(embeddings, projection, panels, heading, files["plot"])
        parts.append(f"plot written to {files['plot']}")
    if query is not None:
        found = neighbours_of(query, network, seen, compute)
        _draw_sheet(str(wanted.neighbours), query, found, seen, network, files["neighbours"])
        result["neighbours"] = [
            {"id": one.id, "split": one.split, "label": one.label, "distance": one.distance} for one in found
        ]
        rows = [[f"{one.distance:.4f}", one.label, one.split, one.id] for one in found]
        parts.append(output.table(["distance", "label", "split", "image"], rows))
        parts.append(f"sheet written to {files['neighbours']}")
    place = str(next(iter(files.values())))
    run = source if Path(source).is_dir() else None
    output.answer(result, "\n".join(parts), identifier=place, run_dir=run)
    return ExitCode.PARTIAL if seen.skipped else ExitCode.DONE


def _network(source: str, resolved: Resolved, output: Output) -> tuple[Network, DataSet]:
    from medcli.data.load import load_data
    from medcli.explain.features_session import network_of_architecture, network_of_run, set_of_run
    from medcli.runs.directory import open_run
    from medcli.settings.groups import ComputeSettings, DataSettings, ModelSettings

    data, model = resolved.group(DataSettings), resolved.group(ModelSettings)
    if Path(source).is_dir():
        adapted = open_run(source).adapter.is_dir()
        for name in (*FIXED_BY_RUN, *OF_WEIGHTS, "random_weights"):
            if resolved.origin(name).layer == "flag" and not (adapted and name == "weights"):
                flag = "--" + name.replace("_", "-")
                what = f"`{flag}` belongs to an architecture; a run has its own weights and its own way with images"
                raise UsageProblem(what, where=flag, code="fixed-by-run")
        network, loaded = network_of_run(source, model.weights if adapted else None, output)
        own_window = resolved.origin("window").layer == "default"
        return network, set_of_run(source, loaded, data, resolved.data_tables, own_window=own_window)
    from medcli.registry.discovery import discover, find

    find(discover(), source)
    if not data.data:
        raise UsageProblem(
            "no data was named to look at",
            where="--data",
            hint=f"`medcli features {source} --weights FILE --data PATH`",
            code="no-data",
        )
    dataset, *others = load_data(data, data_tables=resolved.data_tables)
    if others:
        what = f"features are made of one data set, not of {1 + len(others)}"
        raise UsageProblem(what, where="--data", hint="call it once for each", code="one-data-set")
    random, seed = resolved.values["random_weights"], resolved.group(ComputeSettings).seed
    network, report = network_of_architecture(source, data, model, dataset, random=random, seed=seed)
    output.note(f"weights: {report}")
    return network, dataset


def _panels(dataset: DataSet, resolved: Resolved, wanted: Any) -> Any:
    """Before any work: whether the labels that are to colour the plot exist."""
    import numpy as np

    targets = resolved.values["target"]
    if targets and not wanted.plot:
        raise UsageProblem(
            "`--target` chooses what colours a plot, and none is asked for",
            where="--target",
            hint="add `--plot tsne`",
            code="no-plot",
        )
    if not wanted.plot:
        return ()
    from medcli.explain.scatter import colourings

    labels = np.concatenate([samples.labels for samples in dataset.splits.values()])
    return colourings(labels, dataset.target, targets)


def _draw_sheet(name: str, query: Any, found: Any, seen: Seen, network: Network, path: Path) -> None:
    from medcli.explain.neighbours import draw_neighbours

    pictures = [images.read(at) for images, at in (seen.images[one.row] for one in found)]
    heading = f"nearest images for {network.name}"
    draw_neighbours(Path(name).name, query.images.read(0), found, pictures, heading, path)


def _files(out: str | None, wanted: Any, overwrite: bool) -> dict[str, Path]:
    """What will be written where, checked before any work."""
    from medcli.explain.embeddings import check_ending

    path = Path(out or "features.npz")
    asked = [name for name, value in (("plot", wanted.plot), ("neighbours", wanted.neighbours)) if value]
    if path.suffix.lower() == ".png":
        if len(asked) != 1:
            hint = "`--out FILE.npz` has both beside it" if asked else "`--plot tsne` draws one"
            what = f"`{path}` is one picture, and {len(asked)} are asked for"
            raise UsageProblem(what, where="--out", hint=hint, code="unknown-format")
        files = {asked[0]: path}
    else:
        check_ending(path)
        stem = path.name[: path.name.index(".")] or path.name
        files = {"embeddings": path}
        if wanted.plot:
            files["plot"] = path.with_name(f"{stem}-{wanted.plot}.png")
        if wanted.neighbours:
            files["neighbours"] = path.with_name(f"{stem}-neighbours.png")
    for file in files.values():
        if file.is_dir() or (file.exists() and not overwrite):
            raise UsageProblem(
                f"`{file}` exists already", where="--out", hint="`--overwrite` replaces it", code="out-occupied"
            )
    return files
