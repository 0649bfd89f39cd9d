"""End-to-end encryption over the API."""
