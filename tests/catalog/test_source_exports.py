"""Exports of shops: products with variants, orders that name them in several ways, and feeds."""

from pathlib import Path

import pytest

from catalog.errors import VitrineError
from tests.catalog.sources_kit import Layout, write

RAW = Path(__file__).parents[3] / "shared" / "data" / "raw" / "exports"
SHOPIFY = (
    "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Variant SKU,"
    "Variant Price,Variant Barcode,Image Src,Image Position\n"
    'shirt,Ocean Shirt,"<p>Blue,\nsoft</p>",V,,"men, blue",true,Size,S,SH-S,50,,https://x/2.jpg,2\n'
    "shirt,,,,,,,,M,SH-M,55,,https://x/1.jpg,1\n"
    "shirt,,,,,,,,,,,,https://x/3.jpg,3\n"
    "mug,Mug,A mug,V,,kitchen,true,Title,Default Title,,9,,,\n"
)
ORDERS = (
    "Name,Email,Financial Status,Paid at,Cancelled at,Created at,Lineitem quantity,Lineitem name,"
    "Lineitem price,Lineitem sku\n"
    "#1,a@x,paid,,,2024-05-01 10:20:30 -0400,2,Ocean Shirt - M,55,SH-M\n"
    "#1,,,,,,1,Mug,9,\n"
    "#2,b@x,paid,,2024-06-01 00:00:00 -0400,2024-05-02 10:20:30 -0400,1,Ocean Shirt - S,50,\n"
    "#3,,paid,,,2024-05-03 10:20:30 -0400,1,Mug,9,\n"
)


def test_a_shopify_product_is_one_item_whatever_its_variants(tmp_path: Path) -> None:
    folder = write(tmp_path, {"products_export.csv": SHOPIFY, "orders_export.csv": ORDERS})
    found = Layout(folder, "shopify")
    assert found.item("item_id") == ["shirt", "mug"]
    assert found.item("image") == [[f"https://x/{n}.jpg" for n in (1, 2, 3)], None]
    assert found.item("category") == ["men", "kitchen"]
    assert found.item("price") == ["50", "9"]
    assert found.items["skus"].to_pylist() == [["SH-S", "SH-M"], None]
    assert found.items["Body (HTML)"][0].as_py() == "<p>Blue,\nsoft</p>"
    assert "differs between the variants of 1 products" in found.said


def test_lines_of_shopify_orders_become_interactions_with_products(tmp_path: Path) -> None:
    folder = write(tmp_path, {"products_export.csv": SHOPIFY, "orders_export.csv": ORDERS})
    found = Layout(folder / "products_export.csv", "shopify")
    assert found.pairs == [("a@x", "shirt"), ("a@x", "mug"), ("b@x", "shirt")]
    assert found.of("time")[:2] == ["2024-05-01T10:20:30-0400"] * 2
    assert "1 rows name no buyer" in found.said
    assert "1 lines are of cancelled orders" in found.said


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("user,item\na,SH-M\na,mug\na,??\n", "are a product's SKU"),
        ("user,sku\na,SH-M\na,mug\na,??\n", "are a product's SKU"),
        ("user,handle\na,shirt\na,mug\na,??\n", ""),
    ],
)
def test_ids_beside_a_shopify_export_are_decided_by_joining(
    tmp_path: Path, rows: str, said: str
) -> None:
    folder = write(tmp_path, {"p.csv": SHOPIFY, "interactions.csv": rows})
    found = Layout(folder, "shopify")
    assert [item for _, item in found.pairs] == ["shirt", "mug", "??"]
    assert said in found.said


def test_products_without_interactions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VitrineError, match="neither an export of orders nor"):
        Layout(write(tmp_path, {"products_export.csv": SHOPIFY}), "shopify")


WOO = (
    "ID,Type,SKU,Name,Published,Short description,Description,Sale price,Regular price,Categories,"
    "Images,Parent\n"
    '741,variable,cc-tee,T-Shirt,1,Short,Long,,,"Clothing > Tshirts, Tops\\, all",'
    '"https://x/a.png, https://x/b.png",\n'
    "743,simple,cc-cap,Cap,1,,,16,18,Clothing,,\n"
    "758,variation,cc-tee-red,T-Shirt - Red,1,,,,25,,https://x/c.png,cc-tee\n"
    '759,"variation, virtual",,T-Shirt - Blue,1,,,,26,,,id:741\n'
    "760,variation,z,Lost,1,,,,26,,,id:9\n"
)


def test_woocommerce_variations_count_as_their_product(tmp_path: Path) -> None:
    rows = "user_id,sku,timestamp\n1,cc-tee-red,1\n1,cc-cap,2\n2,759,3\n"
    found = Layout(write(tmp_path, {"wc.csv": WOO, "interactions.csv": rows}), "woocommerce")
    assert found.item("item_id") == ["741", "743", "760"]
    assert found.item("category")[0] == ["Clothing > Tshirts", "Tops, all"]
    assert found.item("image")[0] == ["https://x/a.png", "https://x/b.png"]
    assert found.item("price") == ["25", "18", "26"]
    assert [item for _, item in found.pairs] == ["741", "743", "741"]
    assert "1 variations name no product" in found.said


def test_woocommerce_orders_are_unfolded(tmp_path: Path) -> None:
    orders = (
        "order_id,order_date,status,customer_id,billing_email,line_item_1,line_item_2\n"
        "9,2024-01-02 03:04:05,completed,5,a@x,name:T-Shirt|product_id:741|sku:|quantity:2|total:50,"
        "name:Cap|product_id:|sku:cc-cap|quantity:1|total:16\n"
        "10,2024-01-03 03:04:05,completed,0,b@x,name:Cap|sku:cc-cap|quantity:1,\n"
    )
    found = Layout(write(tmp_path, {"wc.csv": WOO, "orders.csv": orders}), "woocommerce")
    assert found.pairs == [("5", "741"), ("5", "743"), ("b@x", "743")]
    assert found.interactions["quantity"].to_pylist() == ["2", "1", "1"]


def test_woocommerce_orders_with_a_row_a_line_are_read(tmp_path: Path) -> None:
    orders = (
        "Order Number,Order Status,Order Date,Email (Billing),SKU,Item #,Item Name,Quantity\n"
        "9,Completed,2024-01-02 03:04,a@x,cc-tee-red,1,T-Shirt - Red,1\n"
        "9,Completed,2024-01-02 03:04,a@x,,2,Cap,1\n"
    )
    found = Layout(write(tmp_path, {"wc.csv": WOO, "orders.csv": orders}), "woocommerce")
    assert found.pairs == [("a@x", "741"), ("a@x", "743")]


RSS = (
    '<?xml version="1.0" encoding="ISO-8859-1"?>\n<rss version="2.0" '
    'xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>'
    "<item><g:id>1-S</g:id><g:item_group_id>1</g:item_group_id><title>Café &amp; mug</title>"
    "<link>https://x/1</link><g:image_link>https://x/1.jpg</g:image_link><g:price>9.00 EUR</g:price>"
    "<g:additional_image_link>https://x/2.jpg</g:additional_image_link>"
    "<g:additional_image_link>https://x/3.jpg</g:additional_image_link>"
    "<g:product_type>Kitchen &gt; Mugs</g:product_type>"
    "<g:shipping><g:country>DE</g:country><g:price>4 EUR</g:price></g:shipping></item>"
    "<item><g:id>1-M</g:id><g:item_group_id>1</g:item_group_id><title>Other</title></item>"
    "<item><g:id>2</g:id><title>Jug</title><description><![CDATA[<b>Jug</b>]]></description></item>"
    "</channel></rss>"
).encode("latin-1")
PAIRS = "user_id,item_id\na,1-M\na,2\nb,1-S\n"


def test_a_feed_in_rss_is_read_and_its_variants_are_one_item(tmp_path: Path) -> None:
    found = Layout(write(tmp_path, {"feed.xml": RSS, "interactions.csv": PAIRS}), "merchant-feed")
    assert found.item("item_id") == ["1", "2"]
    assert found.item("title") == ["Café & mug", "Jug"]
    assert found.item("category") == ["Kitchen > Mugs", None]
    assert found.item("price") == ["9.00 EUR", None]
    assert found.items["additional_image_link"][0].as_py() == ["https://x/2.jpg", "https://x/3.jpg"]
    assert found.items["shipping"][0].as_py() == "DE:4 EUR"
    assert found.pairs == [("a", "1"), ("a", "2"), ("b", "1")]


def test_a_feed_in_atom_or_text_is_read_alike(tmp_path: Path) -> None:
    atom = (
        '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:g="http://base.google.com/ns/1.0"><title>S'
        '</title><entry><g:id>2</g:id><g:title>Jug</g:title><link href="https://x/2"/></entry></feed>'
    )
    text = (
        "id\ttitle\tlink\timage link\tproduct type\n2\tJug\thttps://x/2\thttps://x/2.jpg\tA > B\n"
    )
    pairs = "user_id,item_id\na,2\n"
    first = Layout(
        write(tmp_path / "a", {"f.xml.gz": atom, "interactions.csv": pairs}), "merchant-feed"
    )
    second = Layout(
        write(tmp_path / "b", {"f.txt": text, "interactions.csv": pairs}), "merchant-feed"
    )
    for found in (first, second):
        assert found.item("item_id") == ["2"]
        assert found.items["link"].to_pylist() == ["https://x/2"]
    assert second.item("image") == ["https://x/2.jpg"]
    assert second.item("category") == ["A > B"]


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss><item>&a;</item></rss>', "DOCTYPE"),
        ("<rss><channel><item><id>1</id>", "is no XML that can be read"),
        ("<rss><channel/></rss>", "holds no product"),
        ("<rss><item>" + "<a>" * 90, "nests elements"),
    ],
)  # fmt: skip
def test_unsafe_or_broken_xml_is_refused(tmp_path: Path, feed: str, message: str) -> None:
    with pytest.raises(VitrineError, match=message):
        Layout(write(tmp_path, {"f.xml": feed, "interactions.csv": PAIRS}), "merchant-feed")


@pytest.mark.parametrize(
    ("name", "source", "rows", "expected"),
    [
        ("shopify_apparel.csv", "shopify", "user,item\na,red-sports-tee\n", 20),
        ("woo_sample_products.csv", "woocommerce", "user,sku\na,cc-hoodie-red\n", 15),
        ("gmerchant_en.tsv", "merchant-feed", "user,item\na,perfume_001\n", 30),
    ],
)
def test_real_exports_are_read(
    tmp_path: Path, name: str, source: str, rows: str, expected: int
) -> None:
    if not (RAW / name).is_file():
        pytest.skip("needs the real exports")
    files: dict[str, str | bytes] = {
        name: b"\xef\xbb\xbf" + (RAW / name).read_bytes(),
        "inventory_export.csv": "Handle,Title,SKU,Location\nx,X,1,Here\n",
        "interactions.csv": rows,
    }
    found = Layout(write(tmp_path, files), source)
    assert len(found.items) == expected
    assert set(found.of("item_id")) < set(found.item("item_id"))
