"""Readers of catalog layouts, by name. A new layout: one file here, one line in `SOURCES`."""

from catalog.sources.amazon import amazon_2014_tables, amazon_2018_tables
from catalog.sources.amazon_2023 import amazon_2023_tables
from catalog.sources.base import RawTables, Source
from catalog.sources.folder import folder_tables
from catalog.sources.hm import hm_tables
from catalog.sources.huggingface import huggingface_tables
from catalog.sources.merchant_feed import merchant_feed_tables
from catalog.sources.mind import mind_tables
from catalog.sources.mmrec import mmrec_tables
from catalog.sources.movielens import movielens_tables
from catalog.sources.recbole import recbole_tables
from catalog.sources.shopify import shopify_tables
from catalog.sources.short_videos import microlens_tables, ninerec_tables, pixelrec_tables
from catalog.sources.sql import sql_tables
from catalog.sources.tables import table_tables
from catalog.sources.woocommerce import woocommerce_tables
from catalog.sources.yambda import yambda_tables
from catalog.sources.yelp import yelp_tables

SOURCES: dict[str, Source] = {
    "folder": Source(folder_tables, "vitrine catalog check shop"),
    "movielens": Source(movielens_tables, "vitrine catalog check ml-100k --source movielens"),
    "huggingface": Source(
        huggingface_tables, "vitrine catalog check saved-dataset --source huggingface"
    ),
    "recbole": Source(recbole_tables, "vitrine catalog check dataset/ml-1m --source recbole"),
    "shopify": Source(shopify_tables, "vitrine catalog check products_export.csv --source shopify"),
    "woocommerce": Source(woocommerce_tables, "vitrine catalog check export --source woocommerce"),
    "merchant-feed": Source(
        merchant_feed_tables, "vitrine catalog check feed.xml --source merchant-feed"
    ),
    "amazon-2023": Source(
        amazon_2023_tables,
        "vitrine catalog check amazon --source amazon-2023 --subset 5core_timestamp_All_Beauty",
    ),
    "amazon-2014": Source(
        amazon_2014_tables, "vitrine catalog check amazon --source amazon-2014 --subset Beauty_5"
    ),
    "amazon-2018": Source(
        amazon_2018_tables, "vitrine catalog check amazon --source amazon-2018 --subset Software_5"
    ),
    "mind": Source(mind_tables, "vitrine catalog check MINDsmall --source mind"),
    "hm": Source(hm_tables, "vitrine catalog check hm --source hm"),
    "mmrec": Source(mmrec_tables, "vitrine catalog check data/baby --source mmrec"),
    "microlens": Source(
        microlens_tables,
        "vitrine catalog check MicroLens --source microlens --subset MicroLens-50k",
    ),
    "pixelrec": Source(
        pixelrec_tables, "vitrine catalog check PixelRec --source pixelrec --subset Pixel200K"
    ),
    "ninerec": Source(
        ninerec_tables, "vitrine catalog check NineRec --source ninerec --subset Bili_Food"
    ),
    "yambda": Source(
        yambda_tables, "vitrine catalog check flat/50m --source yambda --subset likes"
    ),
    "yelp": Source(yelp_tables, "vitrine catalog check yelp --source yelp"),
    "table": Source(
        table_tables, "vitrine catalog check 'items=a.csv interactions=b.parquet' --source table"
    ),
    "sql": Source(
        sql_tables,
        "vitrine catalog import sql 'url=sqlite:///shop.db items=products interactions=orders' "
        "--output shop",
    ),
}

__all__ = ["SOURCES", "RawTables", "Source"]
