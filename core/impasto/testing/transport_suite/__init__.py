"""The suite that every transport must pass: subclass it in a test module, and name the transport."""

from .suite import TransportSuite as TransportSuite
