"""Which addresses are public."""

from maskwire.transport import is_public


def test_public_addresses() -> None:
    for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8", "2a00:1450::200:5efe:8.8.8.8"):
        assert is_public(address), address
    for address in (
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "ff02::1",
        "168.63.129.16",  # Azure's own
        "100.100.100.200",  # Alibaba's
        "192.0.0.192",  # Oracle's
        "fd00:ec2::254",  # those of AWS and Google
        "fd20:ce::254",
        "fec0::1",  # site-local
        "3fff::1",
        "2001:db8::1",
        "100::1",
        "5f00::1",
        "::8.8.8.8",  # IPv4-compatible and translated: nobody's
        "::ffff:0:8.8.8.8",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:808:808::",  # 6to4 and Teredo, whatever they wrap
        "2001:0:808:808::f7f7:f7f7",
        "2a00:1450::200:5efe:10.0.0.1",  # ISATAP
        "192.88.99.1",
    ):
        assert not is_public(address), address
