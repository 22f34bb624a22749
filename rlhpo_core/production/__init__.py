"""From the winner to the champion: refit, registration, gate, promotion, ledger, retuning, alerts."""
