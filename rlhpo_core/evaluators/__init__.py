"""What scores a configuration: a module or package per kind, listed in ``kinds``; ``protocol`` says what they share."""
