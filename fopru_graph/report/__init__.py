"""What people look at: pictures of kept tokens, and tables in the terminal."""
