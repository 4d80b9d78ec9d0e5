"""Writes layouts whose real files are large, with some thousand rows; each returns its settings."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from .sources_kit import write

NUM = 3000
CUTS = (1628643414042, 1658002729837)
Settings = dict[str, str]


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _reviews(draw: random.Random, user: str, item: str, time: str, **more: object) -> str:
    rows = [
        {user: f"u{draw.randrange(60)}", item: f"B{draw.randrange(90)}", **more}
        | {time: CUTS[0] + draw.choice((-(10**9), 0, 10**11)) + n}
        for n in range(NUM)
    ]
    return lines(rows) + "no object\n" + '{"half": \n'


def _meta(draw: random.Random, key: str) -> str:
    rows: list[dict[str, object]] = [
        {
            key: f"B{draw.randrange(80)}",
            "title": draw.choice(["Soap", "var t = getTime()", None]),
            "price": draw.choice([9.5 if key == "parent_asin" else "9.5", "None", "from 3", None]),
            "average_rating": 4.1,
            "salesRank": 3,
            "categories": [["A", f"B{n % 3}"]],
            "images": [{"thumb": "t", "large": f"l{n}", "variant": "MAIN"}],
        }
        for n in range(500)
    ]
    return lines(rows)


def amazon_2023(folder: Path, draw: random.Random) -> Settings:
    reviews = _reviews(draw, "user_id", "parent_asin", "timestamp", rating=4.0, text="good")
    meta = _meta(draw, "parent_asin")
    write(folder, {"Toys.jsonl.gz": reviews, "meta_Toys.jsonl.gz": meta})
    return {"source": "amazon-2023"}


def amazon_2023_ratings(folder: Path, draw: random.Random) -> Settings:
    rows = "".join(
        f"u{draw.randrange(60)},B{n % 90},5.0,{CUTS[n % 2] + n},B1 B2\n" for n in range(NUM)
    )
    rows += "u1,B2,5.0,1,\n"
    head = "user_id,parent_asin,rating,timestamp,history\n"
    write(folder, {"Toys.csv": head + rows, "meta_Toys.jsonl": _meta(draw, "parent_asin")})
    return {"source": "amazon-2023"}


def amazon_2023_split(folder: Path, draw: random.Random) -> Settings:
    head = "user_id,parent_asin,rating,timestamp"
    files: dict[str, str | bytes] = {"meta_Toys.jsonl": _meta(draw, "parent_asin")}
    for part, more in (("train", ""), ("valid", ",note"), ("test", "")):
        rows = (f"u{n % 60},B{draw.randrange(90)},5.0,{n}" for n in range(NUM // 3))
        files[f"Toys.{part}.csv"] = "\n".join([head + more, *(row + more for row in rows)]) + "\n"
    write(folder, files)
    return {"source": "amazon-2023"}


def amazon_2014(folder: Path, draw: random.Random) -> Settings:
    reviews = _reviews(draw, "reviewerID", "asin", "unixReviewTime", overall=4.0, reviewText="ok")
    write(folder, {"reviews_Toys_5.json": reviews, "meta_Toys.json": _meta(draw, "asin")})
    return {"source": "amazon-2014"}


def amazon_2018_ratings(folder: Path, draw: random.Random) -> Settings:
    rows = "".join(f"B{n % 90},u{draw.randrange(60)},5.0,{n}\n" for n in range(NUM))
    write(folder, {"Toys.csv": rows, "meta_Toys.json": _meta(draw, "asin")})
    return {"source": "amazon-2018"}


def yelp(folder: Path, draw: random.Random) -> Settings:
    reviews = _reviews(draw, "user_id", "business_id", "useful", stars=4.0, date="2018-01-01")
    keys = ("name", "categories", "city")
    businesses = [{"business_id": f"B{n}"} | dict.fromkeys(keys, "a, b") for n in range(90)]
    names = ("business.json", "review.json")
    write(folder, dict(zip(names, (lines(businesses), reviews), strict=True)))
    return {"source": "yelp"}


def _behaviors(draw: random.Random, labels: tuple[str, ...], day: int) -> str:
    rows = []
    for n in range(NUM // 3):
        time = f"11/{day + draw.randrange(3)}/2019 {1 + draw.randrange(12)}:10:00 PM"
        time = time if draw.random() < 0.98 else "never"
        past = " ".join(f"N{draw.randrange(50)}" for _ in range(draw.randrange(5)))
        shown = " ".join(f"N{draw.randrange(50)}{draw.choice(labels)}" for _ in range(4))
        rows.append(f"{n}\tU{draw.randrange(60)}\t{time}\t{past}\t{shown}\n")
    return "".join(rows)


def mind(folder: Path, draw: random.Random) -> Settings:
    news = "".join(f"N{n}\tc\ts\tT{n}\ta\tu\t[]\t[]\n" for n in range(50))
    for part, day in (("train", 11), ("dev", 15), ("test", 20)):
        labels = ("-0", "-1") if part != "test" else ("",)
        files: dict[str, str | bytes] = {"news.tsv": news}
        files["behaviors.tsv"] = _behaviors(draw, labels, day)
        write(folder / f"MINDsmall_{part}", files)
    return {"source": "mind"}


def mind_in_one_folder(folder: Path, draw: random.Random) -> Settings:
    news = "".join(f"N{n}\tc\ts\tT{n}\ta\tu\t[]\t[]\n" for n in range(50))
    write(folder, {"news.tsv": news, "behaviors.tsv": _behaviors(draw, ("-0", "-1"), 11)})
    return {"source": "mind"}


def microlens(folder: Path, draw: random.Random) -> Settings:
    rows = "".join(f"u{draw.randrange(60)},{draw.randrange(90)},{n}\n" for n in range(NUM))
    write(folder, {"M_pairs.csv": f"user,item,timestamp\n{rows}"})
    return {"source": "microlens"}


def microlens_sequences(folder: Path, draw: random.Random) -> Settings:
    rows = "".join(
        f"u{n}\t{' '.join(str(draw.randrange(90)) for _ in range(10))}\n" for n in range(NUM // 10)
    )
    write(folder, {"M_pairs.tsv": f"user_id\titem_ids\n{rows}broken\n"})
    return {"source": "microlens"}


def ninerec(folder: Path, draw: random.Random) -> Settings:
    rows = "".join(f"u{draw.randrange(60)},{draw.randrange(90)}\n" for n in range(NUM))
    items = "".join(f"{n},T{n}\n" for n in range(90))
    write(folder, {"QB_pair.csv": f"user_id,item_id\n{rows}", "QB_item.csv": f"id,title\n{items}"})
    return {"source": "ninerec"}


def yambda(folder: Path, draw: random.Random) -> Settings:
    values = [
        (draw.randrange(60), draw.randrange(90), n, draw.randrange(101)) for n in range(20 * NUM)
    ]
    names = ["uid", "item_id", "timestamp", "played_ratio_pct"]
    table = pa.table(dict(zip(names, map(pa.array, zip(*values, strict=True)), strict=True)))
    parquet.write_table(table, folder / "listens.parquet", row_group_size=500)
    return {"source": "yambda"}


def given_split(folder: Path, draw: random.Random) -> Settings:
    files: dict[str, str | bytes] = {
        "items.csv": "item_id,title\n" + "".join(f"{n},T{n}\n" for n in range(90))
    }
    for part, more in (("train", ""), ("valid", ",note"), ("test", "")):
        rows = (f"u{n % 60},{draw.randrange(90)},{n}" for n in range(NUM // 3))
        head = f"user_id,item_id,time{more}"
        files[f"interactions.{part}.csv"] = "\n".join([head, *(one + more for one in rows)]) + "\n"
    write(folder, files)
    return {"source": "folder"}


def _inter(draw: random.Random, more: str) -> str:
    head = f"listener:token\ttrack:token\ttags:token_seq\trating:float\tn:float_seq{more}\n"
    rows = (
        f"u{draw.randrange(60)}\t{draw.randrange(90)}\t{draw.choice(['a b', 'c, d', 'e, f'])}\t"
        f"{n if n != 700 else 'many'}\t1 {n}" + "\tx" * bool(more) + "\n"
        for n in range(NUM // 3)
    )
    return head + "".join(rows)


def recbole(folder: Path, draw: random.Random) -> Settings:
    write(folder, {"one.inter": _inter(draw, "")})
    return {"source": "recbole"}


def recbole_split(folder: Path, draw: random.Random) -> Settings:
    parts = {"train": "", "valid": "\tnote:token", "test": ""}
    write(folder, {f"one.{part}.inter": _inter(draw, more) for part, more in parts.items()})
    return {"source": "recbole"}


LAYOUTS: dict[str, Callable[[Path, random.Random], Settings]] = {
    one.__name__: one
    for one in (
        *(amazon_2023, amazon_2023_ratings, amazon_2023_split, amazon_2014, amazon_2018_ratings),
        *(
            yelp,
            mind,
            mind_in_one_folder,
            microlens,
            microlens_sequences,
            ninerec,
            yambda,
            given_split,
            recbole,
            recbole_split,
        ),
    )
}
