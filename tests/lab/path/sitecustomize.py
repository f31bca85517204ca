"""Read by cassandra-medusa's Python: it keeps its priority, too. See renice."""

import psutil

psutil.Process.ionice = lambda *_: None
psutil.Process.nice = lambda *_: None
