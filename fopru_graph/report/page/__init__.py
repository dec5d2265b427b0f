"""The page of a results folder with its figures and tables; it reads plain files and needs no torch."""
