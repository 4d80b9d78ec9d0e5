"""Usual names of the columns of each role, the most likely first."""

import re
from collections.abc import Sequence

ITEM_ID = [
    *("item_id", "item", "movie_id", "product_id", "article_id", "track_id", "song_id", "book_id"),
    *("wine_id", "recipe_id", "news_id", "video_id", "business_id", "parent_asin", "asin", "isbn"),
    *("anime_id", "game_id", "app_id", "beer_id", "artist_id", "course_id", "hotel_id", "poi_id"),
    *(
        "stock_code",
        "product_code",
        "article_code",
        "item_code",
        "goods_id",
        "listing_id",
        "gmap_id",
    ),
    *("product_sku", "variant_sku", "sku", "sku_id", "ean", "gtin", "upc", "handle", "iid", "id"),
]
TITLE = [
    *("title", "item_title", "product_title", "movie_title", "name", "item_name", "product_name"),
    *("prod_name", "track_name", "book_title", "wine_name", "headline", "product_display_name"),
    *("song_name", "game_title", "app_name", "recipe_name", "beer_name", "display_name"),
]
TEXT = [
    *("description", "detail_desc", "item_description", "product_description", "desc", "overview"),
    *("plot", "summary", "abstract", "about", "body", "text", "content", "body_html"),
    *("short_description", "long_description", "details", "about_product", "synopsis"),
]
CATEGORY = [
    *("category", "categories", "main_category", "category_name", "product_type"),
    *("product_type_name", "product_category", "genre", "genres", "department", "type"),
    *("item_category", "category_code", "product_category_name", "google_product_category"),
    *("sub_category", "category_id"),
]
IMAGE = [
    *("image", "image_path", "image_file", "img", "img_path", "picture", "picture_path", "photo"),
    *("photo_path", "poster", "file_name", "images", "image_name", "image_filename", "poster_path"),
    *("picture_file", "photo_file", "image_link", "image_url", "image_src", "img_url", "img_link"),
    *("picture_url", "photo_url", "main_image", "main_image_url", "primary_image", "image_urls"),
    *("image_urlh", "im_url", "poster_url", "poster_link", "cover", "cover_image", "cover_url"),
    *("thumbnail", "thumbnail_url", "image_url_l", "variant_image"),
]
PRICE = [
    *("price", "cost", "amount", "sale_price", "current_price", "final_price", "discounted_price"),
    *(
        "selling_price",
        "regular_price",
        "variant_price",
        "item_price",
        "product_price",
        "list_price",
    ),
    *("unit_price", "retail_price", "actual_price", "price_usd", "price_eur"),
]
ITEM_ROLES: dict[str, Sequence[str]] = {
    "item_id": ITEM_ID,
    "title": TITLE,
    "text": TEXT,
    "category": CATEGORY,
    "image": IMAGE,
    "price": PRICE,
}
"""Role of an item's column → usual names of the column, the most likely first."""
USER_ID = [
    *(
        "user_id",
        "user",
        "customer_unique_id",
        "customer_id",
        "customer",
        "reviewer_id",
        "person_id",
    ),
    *("person", "member_id", "account_id", "visitor_id", "client_id", "buyer_id", "shopper_id"),
    *("household_key", "household_id", "userid_hash", "profile_id", "user_name", "username"),
    *("customer_email", "session_id", "uid"),
]
TIME = [
    *("timestamp", "time", "datetime", "date", "event_time", "created_at", "unix_review_time"),
    *("review_time", "t_dat", "purchased_at", "order_date", "invoice_date", "purchase_date"),
    *("order_purchase_timestamp", "event_timestamp", "transaction_date", "time_stamp", "date_time"),
    *("created", "review_date", "submit_date", "date_added", "time_ms", "ts", "unix_time"),
    *("position", "order", "step", "sequence"),
]
INTERACTION_ROLES: dict[str, Sequence[str]] = {
    "user_id": USER_ID,
    "item_id": ITEM_ID,
    "time": TIME,
    "rating": [
        "rating",
        "ratings",
        "stars",
        "score",
        "overall",
        "review_score",
        "star_rating",
        "book_rating",
        "user_rating",
    ],
    "review": [
        "review",
        "review_text",
        "review_body",
        "comment",
        "reviews",
        "review_comment_message",
    ],
    "split": ["split"],
}
"""Role of an interaction's column → usual names of the column, the most likely first."""
ORDER_NAMES = {"position", "order", "step", "sequence"}
"""Names of time columns that number each user's items instead of holding timestamps."""
TYPED = re.compile(r"^(.+):(?:token|float)(?:_seq)?$")
"""A column's name with a type after it, as RecBole writes it."""


def plain_name(name: str) -> str:
    """A column's name in lower case, letters and digits only, without a type after a colon."""
    typed = TYPED.match(name.strip())
    return re.sub(r"[^a-z0-9]", "", (typed[1] if typed else name).lower())
