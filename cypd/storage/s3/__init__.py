"""Blobs in an S3-compatible store. What it stands on is loaded only where it is asked for."""

from cypd.storage.s3.opening import open_s3 as open_s3
from cypd.storage.s3.store import StoreRefused as StoreRefused
