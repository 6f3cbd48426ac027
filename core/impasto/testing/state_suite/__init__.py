"""The suite that every store of state must pass: subclass it in a test module, and name the store's class."""

from .suite import StateSuite as StateSuite
