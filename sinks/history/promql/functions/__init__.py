"""The functions of PromQL by family; `registry` joins them."""
