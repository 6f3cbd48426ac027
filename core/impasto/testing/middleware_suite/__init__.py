"""The suite that every middleware must pass: subclass it in a test module, and name the middleware."""

from .suite import MiddlewareSuite as MiddlewareSuite
