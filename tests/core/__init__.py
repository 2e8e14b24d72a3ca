"""Tests of what decides. Pure: no process, no clock, no sleep."""
