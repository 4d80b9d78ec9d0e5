"""The `vitrine` command: finds the subcommand, parses its arguments, and reports user errors in one line.

Heavy libraries are imported after the command is known, so that `vitrine --help` answers at once.
What a command does is in `launch.commands`; its options and settings are the dataclasses that the
function there takes. A command imports the module of its own family alone.
"""

import errno
import os
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from launch.arguments import Signature
    from launch.settings import Option

COMMANDS = {
    "demo": (
        "launch.commands.pipeline:demo",
        "Run every stage on a small synthetic shop, up to a report",
    ),
    "run": (
        "launch.commands.pipeline:run",
        "Run every stage of one config, resuming where it stopped",
    ),
    "pretrain": ("launch.commands.pretrain:pretrain", "Pretrain an item encoder on a catalog"),
    "embed": ("launch.commands.pretrain:embed", "Compute the embedding of every item of a catalog"),
    "finetune": ("launch.commands.finetune:finetune", "Train a recommender for one domain"),
    "extend": (
        "launch.commands.finetune:extend",
        "Add the new items of a catalog to a recommender without training",
    ),
    "compare": (
        "launch.commands.compare:compare",
        "Train many recommenders under one protocol and test which differences are significant",
    ),
    "evaluate": ("launch.commands.evaluate:evaluate", "Compute a recommender's ranking metrics"),
    "evaluate text": (
        "launch.commands.text:evaluate_text",
        "Score generated texts against their user, their item and the catalog",
    ),
    "evaluate image": (
        "launch.commands.image:evaluate_image",
        "Score generated images against their user and their item",
    ),
    "domains add": (
        "launch.commands.domains:domains_add",
        "Register a LoRA recommender with those of one base encoder",
    ),
    "domains list": (
        "launch.commands.domains:domains_list",
        "List the domains of one base encoder",
    ),
    "domains use": ("launch.commands.domains:domains_use", "Select the domain to recommend from"),
    "domains remove": ("launch.commands.domains:domains_remove", "Unregister a domain"),
    "recommend": ("launch.commands.recommend:recommend", "List the top-k items for one user"),
    "index": (
        "launch.commands.recommend:index",
        "Build an approximate nearest neighbour (ANN) index of a recommender's items",
    ),
    "train text": ("launch.commands.text:train_text", "Train a text generator"),
    "train image": ("launch.commands.image:train_image", "Train an image generator"),
    "generate text": (
        "launch.commands.text:generate_text",
        "Generate a text about an item for a user, or for all users",
    ),
    "generate image": (
        "launch.commands.image:generate_image",
        "Generate an image of an item for a user, or for all users",
    ),
    "verify": (
        "launch.commands.provenance:verify",
        "Verify the signature of a generated image: who signed it, and whether it was changed",
    ),
    "forget": (
        "launch.commands.privacy:forget",
        "Delete what was generated for one user (right to erasure)",
    ),
    "rotate-key": (
        "launch.commands.privacy:rotate_key",
        "Create a new key for user pseudonyms; the old one is kept for forget",
    ),
    "launch": (
        "launch.commands.launch:launch",
        "Start a stage on many devices: local, SLURM or Kubernetes",
    ),
    "doctor": ("launch.doctor:doctor", "Check this machine for what would make a run fail"),
    "catalog check": (
        "launch.commands.catalog:catalog_check",
        "Validate a catalog folder and print its statistics and faults",
    ),
    "catalog import": (
        "launch.commands.catalog:catalog_import",
        "Read any source, filter it, and write a catalog folder that is read quickly",
    ),
    "catalog sources": (
        "launch.commands.catalog:catalog_sources",
        "List the layouts of files that are read, each with an example",
    ),
    "catalog show": (
        "launch.commands.catalog:catalog_show",
        "Show a catalog at a glance, one of its items, or one of its users",
    ),
    "catalog demo": ("launch.commands.catalog:catalog_demo", "Write the synthetic demo catalog"),
    "cache list": (
        "launch.commands.cache:cache_list",
        "List what is cached, how large it is and when it was used",
    ),
    "cache prune": (
        "launch.commands.cache:cache_prune",
        "Remove cached data, by size, age or kind",
    ),
    "launch plan": (
        "launch.commands.memory_plan:plan",
        "Estimate the memory and time that a training needs on each device",
    ),
    "launch simulate": (
        "launch.commands.memory_plan:simulate",
        "Simulate one rank of a multi-rank run in a single process",
    ),
}
"""Name → (module:function, one line of help)."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status (see `exit_status`)."""
    # Threads that wait by spinning slow each other down many times over on a shared machine; read
    # when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return exit_status(lambda: dispatch(sys.argv[1:] if arguments is None else arguments))


def exit_status(run: Callable[[], Any]) -> int:
    """Runs a command; returns the exit status.

    2 after a user error (one line, no traceback), 75 where a signal stopped a training that resumes when
    started again, 77 where a signal stopped one that keeps no checkpoint, 130 after Ctrl-C, 141 where the
    reader of the output is gone. Any other error is a bug, and keeps its traceback.
    """
    try:
        run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # Lightning catches Ctrl-C while training, tidies up and then exits.
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted()
        raise
    except Exception as error:
        from catalog.errors import AllRanksError, VitrineError

        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"vitrine: {disk_full_message(error)}", file=sys.stderr)
            return 2
        if not isinstance(error, VitrineError):
            raise
        stopping = sys.modules.get("launch.graceful_stop")
        if stopping is not None and isinstance(error, stopping.StoppedError):
            return stopping.end(error)
        if not isinstance(error, AllRanksError):
            print(f"vitrine: {error}", file=sys.stderr)
        return 2
    return 0


def dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"vitrine {version('vitrine')}")
        return
    name, rest = find_command(arguments)
    function = load_command(name)
    from launch.arguments import Signature, parse_arguments

    signature = Signature.of(function)
    if "-h" in rest or "--help" in rest:
        print(command_help(name, signature))
        return
    function(**parse_arguments(signature, rest))


def find_command(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name (one word or two) and what follows it."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    from catalog.errors import VitrineError, did_you_mean

    first = arguments[0]
    family = [name for name in COMMANDS if name.startswith(first + " ")]
    if not family:
        words = sorted({name.split()[0] for name in COMMANDS})
        hint = did_you_mean(" ".join(arguments[:2]), COMMANDS) or did_you_mean(first, words)
        raise VitrineError(f"unknown command '{first}'.{hint} All of them: vitrine --help")
    if len(arguments) == 1 or arguments[1] in ("-h", "--help"):
        raise VitrineError(f"say which: {' or '.join('vitrine ' + name for name in family)}.")
    raise VitrineError(
        f"unknown command '{first} {arguments[1]}'.{did_you_mean(' '.join(arguments[:2]), family)}"
    )


def load_command(name: str) -> Any:
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(import_module(module), function)


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vitrine COMMAND [options]",
            "",
            "Pretrains item encoders, fine-tunes recommenders, generates texts and images for each user.",
            "",
            *lines,
            "",
            "vitrine COMMAND --help lists a command's options and settings.",
        ]
    )


def command_help(name: str, signature: "Signature") -> str:
    """Usage, then options, then every setting with its default and what it means."""
    from launch.settings import describe, field_docs

    positional = signature.positional
    usage = ["usage: vitrine", name, *(word.upper() for word in positional), "[options]"]
    blocks = [" ".join(usage), COMMANDS[name][1] + "."]
    docs = field_docs(signature.options)
    if positional:
        blocks.append("\n".join(_entry(word.upper(), docs.get(word, "")) for word in positional))
    options = [
        _entry(_option(option.key, option.default), _meaning(option))
        for option in describe(signature.options)
        if option.key not in positional
    ]
    if signature.settings and "config" not in positional:
        where = "Settings from a YAML file, or from one that comes with Vitrine, by its name."
        options.insert(0, _entry("--config FILE|NAME", where))
    blocks.append("\n".join(["options:", *options]))
    if signature.settings:
        settings = [
            _entry(_option(option.key, option.default), _meaning(option))
            for option in describe(signature.settings)
        ]
        heading = "settings, with their defaults (the command line overrules the file):"
        blocks.append("\n".join([heading, *settings]))
    return "\n\n".join(blocks)


def _option(key: str, default: Any) -> str:
    if default is False:
        return f"--{key}"
    if default is None or default == "":
        return f"--{key} {key.split('.')[-1].upper()}"
    if isinstance(default, bool):
        return f"--{key} {str(default).lower()}"
    if isinstance(default, list | tuple):
        return f"--{key} [{','.join(map(str, default))}]"
    if isinstance(default, dict):
        return f"--{key}.KEY VALUE"
    return f"--{key} {default}"


def _meaning(option: "Option") -> str:
    choices = f" ({option.kind})" if option.kind.startswith("one of") else ""
    return option.doc + choices


def _entry(head: str, doc: str) -> str:
    body = textwrap.fill(doc, 92, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return f"  {head}\n{body}" if doc else f"  {head}"


def disk_full_message(error: OSError) -> str:
    """The message for a full disk: where, why, and how to resume."""
    where = error.filename or "the disk of the output"
    return f"{where}: {error.strerror}; make room, and start the same command again to go on"


def _interrupted() -> int:
    print("interrupted; run the same command again to resume", file=sys.stderr)
    return 130


def exit_process(code: int = 0) -> NoReturn:
    """Exits the process; without the interpreter's shutdown where it was one of several ranks.

    Threads that gloo and DeepSpeed leave running sometimes abort the interpreter's shutdown, after all
    output is written and every rank is done.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run() -> NoReturn:
    """The `vitrine` command."""
    from launch.library_logging import redirect_library_logs

    redirect_library_logs()
    exit_process(main())


if __name__ == "__main__":
    run()
