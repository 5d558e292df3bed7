from .search import find_words as find_words
from .search_network import on_network as on_network
from .search_settings import Search as Search
from .search_state import SearchState as SearchState
