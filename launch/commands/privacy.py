"""`vitrine forget` and `vitrine rotate-key`: erase a user, and change the key of pseudonyms."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ForgetOptions:
    folder: str
    """Folder below which artifacts are searched."""
    user: str
    """The user's id."""
    key: str = ""
    """Files of user keys that were in use elsewhere or earlier, with commas between; the key in use, and
    those retired from it (`vitrine rotate-key`), are known."""


def forget(options: ForgetOptions) -> None:
    from generate.forget import forget as remove

    keys = [name for part in options.key.split(",") if (name := part.strip())]
    done = remove(options.user, Path(options.folder), keys)
    for file, rows in done.rows.items():
        print(f"{file}: {rows:,} rows removed")
    for path in (*done.files, *done.caches):
        print(f"{path}: removed")
    if not (done.rows or done.files or done.caches):
        print(f"nothing below {options.folder} was generated for {options.user}")
    for place in done.trained:
        print(
            f"{place}: it may have been trained on their interactions; train it again without them"
        )
    for file in done.mentions:
        print(
            f"{file}: contains their id and was not written by Vitrine for them; remove it there yourself"
        )


@dataclass(frozen=True)
class RotateKeyOptions:
    """No options: the environment variable VITRINE_USER_KEY names the file."""


def rotate_key(options: RotateKeyOptions) -> None:
    from generate.pseudonyms import key_file, rotate_user_key

    print(f"{key_file()}: users are named by {rotate_user_key().fingerprint} from now on")
