"""Assigns columns to roles: by their names, unless the source, catalog.yaml or the config name them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from catalog.errors import VitrineError, did_you_mean

ITEM_ROLES: dict[str, Sequence[str]] = {
    "item_id": [
        "item_id",
        "item",
        "movie_id",
        "product_id",
        "article_id",
        "track_id",
        "song_id",
        "book_id",
        "wine_id",
        "recipe_id",
        "news_id",
        "video_id",
        "business_id",
        "parent_asin",
        "asin",
        "isbn",
        "sku",
        "iid",
        "id",
    ],
    "title": [
        "title",
        "item_title",
        "product_title",
        "movie_title",
        "name",
        "item_name",
        "product_name",
        "prod_name",
        "track_name",
        "book_title",
        "wine_name",
        "headline",
    ],
    "text": [
        "description",
        "detail_desc",
        "item_description",
        "product_description",
        "desc",
        "overview",
        "plot",
        "summary",
        "abstract",
        "about",
        "body",
        "text",
        "content",
    ],
    "category": [
        "category",
        "categories",
        "main_category",
        "category_name",
        "product_type",
        "product_type_name",
        "product_category",
        "genre",
        "genres",
        "department",
        "type",
    ],
    "image": [
        "image",
        "image_path",
        "image_file",
        "img",
        "img_path",
        "picture",
        "picture_path",
        "photo",
        "photo_path",
        "poster",
        "file_name",
    ],
    "price": ["price", "cost", "amount"],
}
"""Role of an item's column → usual names of the column, the most likely first."""
INTERACTION_ROLES: dict[str, Sequence[str]] = {
    "user_id": [
        "user_id",
        "user",
        "customer_id",
        "customer",
        "reviewer_id",
        "person_id",
        "person",
        "member_id",
        "account_id",
        "visitor_id",
        "session_id",
        "uid",
    ],
    "item_id": ITEM_ROLES["item_id"],
    "time": [
        "timestamp",
        "time",
        "datetime",
        "date",
        "event_time",
        "created_at",
        "unix_review_time",
        "review_time",
        "t_dat",
        "purchased_at",
        "position",
        "order",
        "step",
        "sequence",
    ],
    "rating": ["rating", "ratings", "stars", "score", "overall"],
    "review": ["review", "review_text", "review_body", "comment"],
    "split": ["split"],
}
"""Role of an interaction's column → usual names of the column, the most likely first."""
ORDER_NAMES = {"position", "order", "step", "sequence"}
"""Names of time columns that number each user's items instead of holding timestamps."""
NEEDED = {"item_id", "user_id"}

Roles = dict[str, Any]
"""Role → column; `text` → list of columns. A role without column is absent."""


def resolve_roles(
    item_columns: Sequence[str], interaction_columns: Sequence[str], overrides: Iterable[Roles]
) -> tuple[Roles, Roles]:
    """The items' roles and the interactions' roles.

    Each dict of `overrides` takes precedence over those before it and over the guess; a role set to None
    has no column. Raises VitrineError for an unknown role, an unknown column, and a missing id column.
    """
    chosen: Roles = {}
    for roles in overrides:
        for role, column in roles.items():
            _check_role(role, column)
            chosen[role] = column
    _check_columns(chosen, item_columns, interaction_columns)
    items = _assign(ITEM_ROLES, item_columns, chosen, "items")
    interactions = _assign(INTERACTION_ROLES, interaction_columns, chosen, "interactions")
    return items, interactions


def _check_role(role: str, column: object) -> None:
    known = [*ITEM_ROLES, *(role for role in INTERACTION_ROLES if role != "item_id")]
    if role not in known:
        raise VitrineError(f"roles names an unknown role {role!r}.{did_you_mean(str(role), known)}")
    if role == "text" and isinstance(column, list | tuple):
        if all(isinstance(name, str) for name in column):
            return
    elif column is None or isinstance(column, str):
        return
    expected = "a column or a list of columns" if role == "text" else "one column's name"
    raise VitrineError(f"roles.{role} is {column!r}; give {expected}, or null for none.")


def _check_columns(chosen: Roles, items: Sequence[str], interactions: Sequence[str]) -> None:
    for role, column in chosen.items():
        tables = [items] * (role in ITEM_ROLES) + [interactions] * (role in INTERACTION_ROLES)
        columns = [name for table in tables for name in table]
        names = column if isinstance(column, list | tuple) else [column]
        for name in names:
            if name is not None and name not in columns:
                where = " or ".join(table for table, roles in _TABLES.items() if role in roles)
                raise VitrineError(
                    f"roles.{role} names the column {name!r}, which is not among those of {where}."
                    f"{did_you_mean(name, columns)}"
                )


_TABLES = {"items": ITEM_ROLES, "interactions": INTERACTION_ROLES}


def _assign(
    known: dict[str, Sequence[str]], columns: Sequence[str], chosen: Roles, table: str
) -> Roles:
    assigned: Roles = {}
    for role, names in known.items():
        if role in chosen and not _is_elsewhere(role, chosen[role], columns):
            column = chosen[role]
        else:
            taken = {name for name in chosen.values() if isinstance(name, str)}
            column = _guess(names, [name for name in columns if name not in taken])
        if role == "text" and isinstance(column, str):
            column = [column]
        if column:
            assigned[role] = list(column) if role == "text" else column
        elif role in NEEDED:
            raise VitrineError(
                f"{table} has no column that looks like {role} among {', '.join(columns)}; "
                f"name it with roles: {{{role}: <column>}}."
            )
    # Without a description the category is the only text beside the title.
    if table == "items" and "text" not in assigned and "text" not in chosen:
        assigned["text"] = [assigned["category"]] if "category" in assigned else []
    return assigned


def _is_elsewhere(role: str, column: Any, columns: Sequence[str]) -> bool:
    """Whether an overridden id column belongs to the other table, which may name the item's id otherwise."""
    return role == "item_id" and column not in columns


def _guess(names: Sequence[str], columns: Sequence[str]) -> str | None:
    plain = {_plain(column): column for column in reversed(columns)}
    return next((plain[key] for name in names if (key := _plain(name)) in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
