from tests.map_children import kept_map_child

__all__ = ["kept_map_child"]
