"""Helpers for authors of providers, made of public records only. A plugin that uses none of them is as good."""

from impasto.costs import TokenPrice

from .addresses import images_from_urls, images_of_job, pending_from_url, poll_of_job
from .base64_text import DATA_URI, decode_base64
from .images import image_in_body, images_from_base64
from .parameters import params_to_json, split_files, to_json
from .refusals import STATUSES, Advice, Place, Refusals, charge_unknown, json_object, unusable
from .tokens import Token, TokenCache
from .usage import usage_by_modality, usage_in

__all__ = [
    "DATA_URI",
    "STATUSES",
    "Advice",
    "Place",
    "Refusals",
    "Token",
    "TokenCache",
    "TokenPrice",
    "charge_unknown",
    "decode_base64",
    "image_in_body",
    "images_from_base64",
    "images_from_urls",
    "images_of_job",
    "json_object",
    "params_to_json",
    "pending_from_url",
    "poll_of_job",
    "split_files",
    "to_json",
    "unusable",
    "usage_by_modality",
    "usage_in",
]
