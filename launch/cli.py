"""The `vitrine` command: finds the sub-command, reads its arguments, and reports mistakes plainly.

Nothing heavy is imported before it is known what to do, so that `vitrine --help` answers at once.
What a command does is in `launch.commands`; its options and settings are the dataclasses that the
function there takes.
"""

import errno
import os
import sys
import textwrap
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from launch.arguments import Signature
    from launch.settings import Option

COMMANDS = {
    "demo": ("launch.commands:demo", "Take a small made-up shop all the way to a page of results"),
    "run": ("launch.commands:run", "Run every stage of one config, resuming where it stopped"),
    "pretrain": ("launch.commands:pretrain", "Train an item encoder on a catalog"),
    "embed": ("launch.commands:embed", "Turn every item of a catalog into a vector"),
    "finetune": ("launch.commands:finetune", "Fit a recommender to one domain"),
    "extend": ("launch.commands:extend", "Let a recommender rank what came after its training"),
    "compare": (
        "launch.commands:compare",
        "Fit many arms alike and say which differences are real",
    ),
    "evaluate": (
        "launch.commands:evaluate",
        "Measure a recommender again, in full or by other rules",
    ),
    "evaluate text": (
        "launch.commands:evaluate_text",
        "Say whether words fit their person, their item and the catalog",
    ),
    "evaluate image": (
        "launch.commands:evaluate_image",
        "Say whether pictures fit their person and their item, and look at them",
    ),
    "domains add": ("launch.commands:domains_add", "Put a recommender among those of one base"),
    "domains list": ("launch.commands:domains_list", "Say which domains share a base"),
    "domains use": ("launch.commands:domains_use", "Choose the domain that is recommended from"),
    "domains remove": ("launch.commands:domains_remove", "Take a recommender out again"),
    "recommend": ("launch.commands:recommend", "List what one person is likely to want next"),
    "index": ("launch.commands:index", "Make a large catalog's items quick to find"),
    "train text": ("launch.commands:train_text", "Learn to write about items for a person"),
    "train image": ("launch.commands:train_image", "Learn to draw items for a person"),
    "generate text": ("launch.commands:generate_text", "Write about an item for a person"),
    "generate image": ("launch.commands:generate_image", "Draw an item for a person"),
    "verify": ("launch.commands:verify", "Say who signed a picture, and whether it was changed"),
    "forget": ("launch.commands:forget", "Remove one user from what was made"),
    "rotate-key": (
        "launch.commands:rotate_key",
        "Name users by a new key, and keep the old one for forget",
    ),
    "launch": (
        "launch.submit.command:launch",
        "Start a stage on many devices: here, on SLURM, or on Kubernetes",
    ),
    "doctor": ("launch.doctor:doctor", "Look at this machine and say what would go wrong"),
    "catalog check": (
        "launch.commands:catalog_check",
        "Read a catalog folder and say what is in it",
    ),
    "catalog demo": ("launch.commands:catalog_demo", "Draw and write the demo world into a folder"),
    "launch plan": (
        "launch.plan.command:plan",
        "Say what a training needs of each device, before one is paid for",
    ),
    "launch rehearse": (
        "launch.plan.command:rehearse",
        "Go through a run of many ranks in one process, without the others",
    ),
}
"""Name → (module:function, one line of help)."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    2 after a mistake of the person's (one line, no traceback), 75 where a training was stopped by a
    signal and goes on when started again, 77 where it was and keeps nothing to go on from, 130 after
    Ctrl-C, 141 where nobody reads the output any more. Anything else that goes wrong is a bug, and keeps
    its traceback.
    """
    # Threads that wait by spinning slow each other down many times over on a shared machine; read
    # when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        dispatch(sys.argv[1:] if arguments is None else arguments)
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
        from catalog.errors import SharedError, VitrineError

        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"vitrine: {no_room(error)}", file=sys.stderr)
            return 2
        if not isinstance(error, VitrineError):
            raise
        stopping = sys.modules.get("launch.stopping")
        if stopping is not None and isinstance(error, stopping.Stopped):
            return stopping.end(error)
        if not isinstance(error, SharedError):
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
    from catalog.errors import VitrineError, nearest

    first = arguments[0]
    family = [name for name in COMMANDS if name.startswith(first + " ")]
    if not family:
        words = sorted({name.split()[0] for name in COMMANDS})
        hint = nearest(" ".join(arguments[:2]), COMMANDS) or nearest(first, words)
        raise VitrineError(f"unknown command '{first}'.{hint} All of them: vitrine --help")
    if len(arguments) == 1 or arguments[1] in ("-h", "--help"):
        raise VitrineError(f"say which: {' or '.join('vitrine ' + name for name in family)}.")
    raise VitrineError(
        f"unknown command '{first} {arguments[1]}'.{nearest(' '.join(arguments[:2]), family)}"
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
            "Learns a shop's items and its people, and dresses the window for each person.",
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


def no_room(error: OSError) -> str:
    """What a full disk means for the person."""
    where = error.filename or "the disk of the output"
    return f"{where}: {error.strerror}; make room, and start the same command again to go on"


def _interrupted() -> int:
    print("interrupted; run the same command again to resume", file=sys.stderr)
    return 130


def leave(code: int = 0) -> NoReturn:
    """Ends the process; at once where it shared a training with others.

    Threads that gloo and DeepSpeed leave running were seen to abort the interpreter's own ending, now
    and then, when all had been written and every rank was done.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run() -> NoReturn:
    """The `vitrine` command."""
    from launch.quiet import keep_libraries_quiet

    keep_libraries_quiet()
    leave(main())


if __name__ == "__main__":
    run()
