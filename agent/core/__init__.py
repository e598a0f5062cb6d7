"""The words every room shares. Imports nothing else of ours."""
