"""What people look at after a run: pictures, tables and pages."""
