"""Dashboards of what the agents measure, made from the Groups' names. The daemon never imports it."""
