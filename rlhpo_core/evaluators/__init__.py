"""What scores a configuration: a module or a package per kind, listed in ``kinds``; ``protocol`` says what they share."""
