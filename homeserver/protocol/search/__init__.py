"""Full text search: the words of texts and of search terms."""
