"""End-to-end encryption over federation."""
