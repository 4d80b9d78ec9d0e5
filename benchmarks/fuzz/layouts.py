# ruff: noqa: E501
"""Small copies of the layouts that the sources read."""

import io
import json
from typing import Any

import pyarrow as pa
from pyarrow import parquet

Files = dict[str, bytes]
PAIRS = b"user_id,item_id,timestamp\na,1,5\na,2,6\nb,1,7\n"
LOG = b"user_id,item_id,rating,timestamp\n1,1,5,978300760\n1,2,3,978302109\n2,1,4,978302110\n"


def _lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


REVIEWS = _lines(
    {
        "reviewerID": "A1",
        "asin": "1",
        "reviewText": "ok",
        "overall": 5.0,
        "unixReviewTime": 1370044800,
    },
    {"reviewerID": "A1", "asin": "2", "overall": 3.0, "unixReviewTime": 1370044801},
)
FEED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">'
    b"<channel><title>Shop</title><item><g:id>1</g:id><g:item_group_id>1</g:item_group_id><title>Mug &amp; co"
    b"</title><link>https://x/1</link><g:image_link>https://x/1.jpg</g:image_link><g:price>9.00 EUR</g:price>"
    b"<g:shipping><g:country>DE</g:country></g:shipping></item><item><g:id>2</g:id><title>Jug</title>"
    b"<description><![CDATA[<b>Jug</b>]]></description></item></channel></rss>"
)
FILMS = b"".join(
    f"{n}|Film {n} (1995)|01-Jan-1995||http://x|{'|'.join('010' + '0' * 16)}\n".encode()
    for n in (1, 2)
)
META_2023 = _lines(
    {"main_category": "B", "title": "Brush", "average_rating": 4.8, "rating_number": 10, "features": ["soft"],
     "description": [], "price": "14.99", "images": [{"thumb": "t", "large": "l", "variant": "MAIN", "hi_res": None}],
     "details": {"Brand": "B"}, "parent_asin": "1"},
    {"title": "Comb", "price": 9.5, "images": [], "parent_asin": "2"},
)  # fmt: skip
META_2014 = (
    b"{'asin': '1', 'title': 'A \"b\"', 'price': 9.5, 'imUrl': 'http://x/1.jpg', 'categories': [['T', 'D']]}\n"
    b"{'asin': '2', 'description': \"it's\", 'salesRank': 7, 'categories': [['T']]}\n"
)
LAYOUTS: dict[str, tuple[str, str, Files]] = {
    "folder": ("", "", {
        "items.csv": b"item_id,title,price,image\n1,Mug,9.5,a.jpg\n2,Pot,1,b.jpg\n",
        "interactions.csv": LOG, "edges.csv": b"a,b\n1,2\n", "catalog.yaml": b"roles: {title: title}\n"}),
    "movielens": ("", "", {"u.item": FILMS, "u.data": b"9\t2\t5\t20\n9\t1\t1\t10\n8\t1\t3\t5\n"}),
    "movielens-csv": ("", "", {
        "movies.csv": b'movieId,title,genres\n1,"A (2001)",Comedy|Romance\n2,Heat (1995),(no genres listed)\n',
        "ratings.csv": b"userId,movieId,rating,timestamp\n1,1,5.0,978300760\n1,2,3.5,978302109\n",
        "links.csv": b"movieId,imdbId,tmdbId\n1,0211915,194\n"}),
    "recbole": ("", "", {
        "ml.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\t1\t3\t8.8e8\n7\t2\t5\t881\n",
        "ml.item": b"item_id:token\tmovie_title:token_seq\tclass:token_seq\n1\tToy Story\tA B\n2\tHeat\t\n"}),
    "shopify": ("", "", {
        "products_export.csv": b"Handle,Title,Body (HTML),Vendor,Type,Tags,Variant SKU,Variant Price,Image Src\n"
        b'shirt,Shirt,"<p>Blue,\nsoft</p>",V,,"men, blue",SH-S,50,https://x/2.jpg\nshirt,,,,,,SH-M,55,\n'
        b"mug,Mug,A mug,V,,kitchen,,9,\n",
        "orders_export.csv": b"Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku\n"
        b"#1,a@x,2024-05-01 10:20:30 -0400,2,Shirt - M,55,SH-M\n#1,,,1,Mug,9,\n"}),
    "woocommerce": ("", "", {
        "wc.csv": b'ID,Type,SKU,Name,Published,Regular price,Categories,Images,Parent\n741,variable,cc-tee,T,1,,"A > B, C",'
        b'"https://x/a.png, https://x/b.png",\n743,simple,cc-cap,Cap,1,18,C,,\n758,variation,red,T - R,1,25,,,cc-tee\n',
        "interactions.csv": b"user_id,sku,timestamp\n1,red,1\n1,cc-cap,2\n"}),
    "merchant-feed": ("", "", {"feed.xml": FEED, "interactions.csv": PAIRS}),
    "amazon-2023": ("", "All_Beauty", {
        "raw/meta_categories/meta_All_Beauty.jsonl": META_2023,
        "raw/review_categories/All_Beauty.jsonl": _lines(
            {"rating": 5.0, "text": "good", "parent_asin": "1", "user_id": "U", "timestamp": 1628643414041},
            {"rating": 1.0, "text": "", "parent_asin": "2", "user_id": "V", "timestamp": 1658002729837})}),
    "amazon-2014": ("", "", {"reviews_Toys_5.json": REVIEWS, "meta_Toys.json": META_2014}),
    "amazon-2018": ("", "", {"Software_5.json": REVIEWS, "meta_Software.json": _lines(
        {"asin": "1", "title": "A", "description": ["d"], "category": ["S"], "price": "$9.50", "imageURL": ["u"]},
        {"asin": "2", "title": "B", "category": [], "imageURL": [], "rank": "5 in S"})}),
    "mind": ("", "", {
        "news.tsv": b'N1\tsports\tgolf\tThe "best\tAn\thttps://x\t[]\t[]\nN2\tnews\tworld\tWar\t\thttps://x\t[]\t[]\n',
        "behaviors.tsv": b"1\tU1\t11/12/2019 2:14:46 PM\tN2\tN1-1 N2-0\n2\tU2\t11/11/2019 5:53:12 AM\t\tN2-1\n"}),
    "hm": ("", "", {
        "articles.csv": b"article_id,product_code,prod_name,product_type_name,detail_desc\n0108775015,0108775,Top,Vest,x\n",
        "transactions_train.csv": b"t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,00ff,0108775015,0.05,2\n"}),
    "mmrec": ("baby", "", {
        "baby/baby.inter": b"userID\titemID\trating\ttimestamp\tx_label\n0\t1\t5.0\t9\t0\n0\t2\t5.0\t8\t1\n0\t0\t1.0\t7\t2\n",
        "baby/i_id_mapping.csv": b"asin\titemID\nB0\t0\nB1\t1\nB2\t2\n"}),
    "microlens": ("", "", {
        "M_pairs.csv": b"user,item,timestamp\n5,1,1583378629552\n5,2,1583378629553\n",
        "M_titles.csv": b'item,title\n1,"One, two"\n2,Plain, comma\n'}),
    "pixelrec": ("", "", {
        "interactions/Pixel200K.csv": b"item_id,user_id,timestamp\nv1,u1,1648000000\n",
        "information/Pixel200K.csv": b'item_id,view_number,title,tag,description\nv1,9,T,food,"a, b"\n'}),
    "ninerec": ("", "QB", {"QB/QB_pair.csv": b"user_id,item_id\nu1,1\nu1,2\n", "QB/QB_item.csv": b'1,T,"Title, one"\n2,U,Two\n'}),
    "yambda": ("flat/50m", "listens", {
        "flat/50m/listens.parquet": _parquet(uid=[1, 1], timestamp=[5, 10], item_id=[7, 8], is_organic=[1, 0],
            played_ratio_pct=[100, 49], track_length_seconds=[200, 100]),
        "artist_item_mapping.parquet": _parquet(artist_id=[3, 4], item_id=[7, 7])}),
    "yelp": ("", "", {
        "yelp_academic_dataset_business.json": _lines({"business_id": "b1", "name": "Café", "categories": "Food, Cafes"}),
        "yelp_academic_dataset_review.json": _lines({"user_id": "u", "business_id": "b1", "stars": 5.0, "text": "G",
            "date": "2018-07-07 22:09:11"}),
        "yelp_academic_dataset_photo.json": _lines({"photo_id": "p1", "business_id": "b1", "caption": "Bar", "label": "in"})}),
    "table": ("goods.csv", "", {"goods.csv": b"sku,name\n1,Mug\n2,Pot\n", "ratings.csv": LOG}),
}  # fmt: skip
"""Source → path inside, subset, files. A name after a hyphen is another release, if no source has it."""
