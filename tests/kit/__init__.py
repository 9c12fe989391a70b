"""The test kit: what applications test themselves with."""
