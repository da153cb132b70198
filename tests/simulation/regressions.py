"""Seeds that once broke a rule, each with what was wrong. They are run again by the tests."""

REGRESSIONS: dict[int, str] = {
    11: "only the first start after a move of the wall clock knew of it: later ones opened windows early",
    23: "an account that was removed and put back had forgotten that its provider had asked it to wait",
    45: "a wide limit was rebuilt from a journal on two scales of time as if they were one",
    220: "limits changed after a move of the clock left out what the journal seemed to have in the future",
    225: "limits changed while endings were still on their way to the disk left those out: windows opened early",
    226: "a message that was being handed over named its own place as one that it waits for",
    233: "a wide limit whose history could not be read was listed and held nobody",
    366: "after the first hand-over ahead of midnight the next ones of the new day's quota began at once",
    583: "a wait told after the wall clock was set back was taken for an older one, on an older scale, and forgotten",
    589: "a message that was being handed over did not hear that its recipient had to wait, unless it was the first wait",
    735: "of many flows each held four entries and was read on when none was left: it missed its turns meanwhile",
    807: "the wall clock was set during the start: the scale of the run was taken for another",
    1616: "a pause of an account, or its end, that was asked for during a change of its limits undid that change",
    1771: "a message that was handed over while its forecast was made named its own place as one that it waits for",
}
