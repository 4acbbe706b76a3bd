"""Versions of a fleet's Postgres schema, one file each, which Alembic reads. Released ones never change.

A version only adds to the one before, so that gateways of the release before go on with it while a fleet is renewed
one by one.
"""
