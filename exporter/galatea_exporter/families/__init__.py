"""One file per generator family: its network, its facts and its registration."""
