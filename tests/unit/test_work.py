import pytest
from imageprocessing_worker.work import host_of


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://shop.example/a", "shop.example:80"),
        ("HTTP://Shop.Example./a", "shop.example:80"),
        ("http://shop.example:80", "shop.example:80"),
        ("http://shop.example:8080/a", "shop.example:8080"),
        ("https://shop.example?a", "shop.example:443"),
        ("https://shop.example:443/a", "shop.example:443"),
        ("https://bücher.example/ä", "xn--bcher-kva.example:443"),
        ("https://XN--bcher-kva.example/a", "xn--bcher-kva.example:443"),
        ("http://[::1]/a", "::1:80"),
        ("http://127.0.0.1/a", "127.0.0.1:80"),
        ("http://shop.example:x/a", ""),
        ("http://" + "ü" * 70 + ".example/", ""),
    ],
)
def test_one_host_has_one_name(url: str, host: str) -> None:
    assert host_of(url) == host
