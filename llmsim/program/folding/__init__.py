"""Who is alike: classes of ranks and links that act the same, so that one of each is played."""
