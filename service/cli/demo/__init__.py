"""`remora demo`: the whole machine on loopback, with no key and no network."""
