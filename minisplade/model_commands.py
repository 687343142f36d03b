"""What the commands for models, and for what this machine makes of them, do."""

from argparse import Namespace

from minisplade.display import print_json, print_line, print_model, print_report, say, wants_json
from minisplade.errors import CheckpointError


def models(options: Namespace) -> None:
    """List the known models, or fetch, explain, convert or verify one."""
    from minisplade.hub import KNOWN_MODELS, find_model, is_cached

    action, as_json = options.action, wants_json(options.json)
    _check_model_options(options, list(KNOWN_MODELS))
    if action == "pull":
        print_line(str(find_model(options.name)))
    elif action == "inspect":
        from minisplade.inspection import inspect_model

        print_report(inspect_model(find_model(options.name)), as_json)
    elif action == "convert":
        from minisplade.conversion import convert_model

        gap = convert_model(options.name, options.target, options.float16)
        say(f"{options.target}: weights of vectors differ by {gap:.1e} at most")
    elif action == "verify":
        _verify(options, as_json)
    else:
        for model in KNOWN_MODELS.values():
            print_model(model, is_cached(model), as_json)


def _check_model_options(options: Namespace, known: list[str]) -> None:
    """Exit with what is missing or too much for the action that is asked for."""
    action, name, error = options.action, options.name, options.parser.error
    if action == "list" and name:
        error(f"list takes no name; did you mean `models pull {name}`?")
    if action == "pull" and not name:
        error(f"pull needs a name; known models: {', '.join(known)}")
    if action != "list" and not name:
        error(f"{action} needs a name or a folder")
    if bool(options.target) != (action == "convert"):
        error("convert needs two folders" if action == "convert" else f"{action} takes one name")
    if options.float16 and action != "convert":
        error("--float16 goes with convert")
    if options.vectors and action != "verify":
        error("--vectors goes with verify")


def _verify(options: Namespace, as_json: bool) -> None:
    """Print how far each kernel path is off, and fail if that is too much."""
    from minisplade.conversion import verify_model

    wrong = []
    for check in verify_model(options.name, options.vectors):
        row = {"kernel_path": check.kernel_path, "vectors": check.num_vectors}
        row |= {"largest_difference": check.largest_difference, "right": check.is_right}
        if as_json:
            print_json(row)
        else:
            verdict = "right" if check.is_right else f"wrong, more than {check.tolerance}"
            print_line(
                f"{check.kernel_path:10} {check.num_vectors} vectors, largest difference "
                f"{check.largest_difference:.1e}: {verdict}"
            )
        if not check.is_right:
            wrong.append(check.kernel_path)
    if wrong:
        raise CheckpointError(f"{options.name} gives other vectors on {', '.join(wrong)}")


def info(options: Namespace) -> None:
    """Show what this machine offers and what of it is used."""
    from minisplade.runtime import describe

    rows = describe()
    if wants_json(options.json):
        print_json(rows)
    else:
        for name, value in rows.items():
            print_line(f"{name:14} {value}")


def warmup(options: Namespace) -> None:
    """Compile every kernel that encoding and searching use, and keep them on disk."""
    from minisplade.warmup import compile_kernels

    seconds = compile_kernels()
    say(f"The kernels are ready, after {seconds:.1f} s.")
