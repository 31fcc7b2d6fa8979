"""How much one client, or one project, may have a second: the section ``[limits]``.

Read in this order: ``buckets`` (counting, pure), ``rates`` (who is counted, and what happens past a
limit), ``pace`` (the bytes of one request).
"""

from cypd.limits.rates import Rates

__all__ = ["Rates"]
