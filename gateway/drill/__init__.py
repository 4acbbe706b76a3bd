"""Plays failures of providers against a configuration, in memory and in virtual time; judges what an app would see."""
