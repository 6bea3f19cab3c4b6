"""The words of the sample PDFs: plain data, no drawing.

A block is `(style, text)`; the styles are those of `make.py`. The known text beside each PDF is made of the same
strings, so that it cannot drift from what is drawn.
"""

from __future__ import annotations

Block = tuple[str, str]

REPORT_PAGES: list[list[Block]] = [
    [
        ("title", "Harbour Library: Report for 2024"),
        ("text", "Prepared for the city council by Renée Müller, head librarian, and submitted on 14 February 2025."),
        ("heading", "The year in brief"),
        (
            "text",
            "The library was open on 302 days and counted 148,920 visits, which is 6.4 percent more than in the year "
            "before. Every second visitor came to read or to work rather than to borrow a book. The reading room on "
            "the second floor was full on most weekday afternoons from October to March, and on 41 days people had to "
            "be turned away.",
        ),
        (
            "text",
            "Loans of printed books fell for the third year in a row, from 211,400 to 203,750. Loans of audio books "
            "rose by a quarter. The children's department, which had been closed for repairs until May 2023, lent "
            "52,118 items and is back where it stood before the flood.",
        ),
        ("heading", "Staff and opening hours"),
        (
            "text",
            "Twenty-three people share the equivalent of 17.5 full posts. Two posts stayed vacant from April to "
            "September because the salary that the city can offer is below that of the university in Zürich. Sunday "
            "opening was tried for twelve weeks and drew 310 visitors on an average day; we recommend that it be kept "
            "from November to February.",
        ),
        ("footer", "Page 1 of 3"),
    ],
    [
        ("heading", "The building"),
        (
            "text",
            "The roof above the east wing was renewed in June at a cost of 184,000 francs, 9,500 less than the "
            "estimate. The lift failed on eleven days. Its control unit is no longer made, and the supplier has "
            "offered a replacement for 61,200 francs including removal of the old one.",
        ),
        (
            "text",
            "The heating was turned down by one degree in January 2024. Together with the new windows this saved "
            "about 38 megawatt hours of gas, or 12 percent of what was used in 2023. No complaint reached us.",
        ),
        ("heading", "Events"),
        (
            "text",
            "There were 96 public events. The best attended were the reading by Zoë Lefèvre in March, with 240 "
            "guests, and the repair café, which is held on the first Saturday of each month and never had fewer than "
            "sixty. The homework club moved to the ground floor and now runs four days a week.",
        ),
        (
            "text",
            "Schools brought 188 classes. Each class of the third year has by now been in the building at least once, "
            "as the council asked in its decision of 2022.",
        ),
        ("footer", "Page 2 of 3"),
    ],
    [
        ("heading", "Money"),
        (
            "text",
            "Running costs came to 2,914,600 francs. Of these, 71 percent were wages, 14 percent books and licences, "
            "9 percent the building and 6 percent everything else. Licences for electronic media have doubled in five "
            "years and will pass the budget for printed books in 2026 if nothing is changed.",
        ),
        ("heading", "What we ask for"),
        (
            "text",
            "First, that the replacement of the lift be approved in the first half of 2025. Second, that the two "
            "vacant posts be advertised again, one grade higher. Third, that Sunday opening be made permanent for the "
            "four winter months, at a yearly cost of 46,000 francs.",
        ),
        (
            "text",
            "We thank the friends of the library, who gave 1,460 hours of their time, and the fire brigade, which on "
            "2 August emptied the cellar within ninety minutes.",
        ),
        ("footer", "Page 3 of 3"),
    ],
]

TWO_COLUMNS: list[Block] = [
    ("title", "Why Small Rivers Flood Twice"),
    ("byline", "Ana Gómez and Peter Straßer, Institute of Hydrology"),
    ("heading", "Introduction"),
    (
        "text",
        "When heavy rain falls on a small valley, the stream that drains it rises within an hour and falls again "
        "before the evening. People who live beside such streams report something that the textbooks leave out: often "
        "there is a second wave, lower and broader, that arrives during the night. We measured it in nineteen "
        "valleys.",
    ),
    (
        "text",
        "The first wave is water that runs over the ground. The second is water that was already in the ground and is "
        "pushed out by the new rain. The two can be told apart because old water is warmer in winter and carries more "
        "dissolved silica.",
    ),
    ("heading", "Measurements"),
    (
        "text",
        "Each gauge recorded level, temperature and conductivity every five minutes from March 2019 to October 2023. "
        "We kept the 412 events in which more than 15 millimetres fell within three hours. Events with snow on the "
        "ground were left out, because melt water blurs the difference on which the method rests.",
    ),
    (
        "text",
        "Gauges drift. We visited every station each month and corrected the level by hand readings. The largest "
        "correction was 4 centimetres, the median below one.",
    ),
    ("heading", "Results"),
    (
        "text",
        "A second wave followed in 287 of the 412 events, that is in 70 percent. It came between five and eleven hours "
        "after the first, later in longer valleys. Its peak was on average 38 percent of the first peak. In six events "
        "it was the higher one, each time after a wet week.",
    ),
    (
        "text",
        "Valleys with deep soil had a second wave almost always. Where the rock lies bare, we saw it in one event out "
        "of five. Forest made no difference that our data could show.",
    ),
    ("heading", "What it means"),
    (
        "text",
        "Warnings are lifted when the level has fallen for two hours. In the wet week of July 2021 that was too early "
        "in four villages. A rule that looks at the soil and not only at the stream would have kept the warning up "
        "until the morning, at no cost in false alarms.",
    ),
    (
        "text",
        "All readings and the programs that sort them are open. We would like to hear from anyone who has older "
        "records of small streams, on paper or otherwise.",
    ),
]

INVOICE_HEAD: list[Block] = [
    ("title", "Invoice 2025-0417"),
    ("text", "Atelier Bärlocher, Brunnengasse 12, 9000 St. Gallen"),
    ("text", "To: Café Mélange, Hauptstrasse 5, 8400 Winterthur. Delivered on 3 April 2025, order 88123."),
]
INVOICE_TABLE: list[list[str]] = [
    ["Item", "Quantity", "Unit price", "Amount"],
    ["Oak table, oiled", "4", "640.00", "2,560.00"],
    ["Chair with armrest", "16", "185.50", "2,968.00"],
    ["Bar stool, steel", "6", "129.00", "774.00"],
    ["Wall shelf 120 cm", "3", "98.75", "296.25"],
    ["Coat rack", "2", "75.00", "150.00"],
    ["Delivery and assembly", "1", "420.00", "420.00"],
    ["Total before tax", "", "", "7,168.25"],
    ["Value added tax 8.1 %", "", "", "580.63"],
    ["Total due", "", "", "7,748.88"],
]
INVOICE_FOOT: list[Block] = [
    ("text", "Payable within 30 days. Please give the invoice number with your payment. Goods remain ours until paid."),
]

LETTER_LINES: list[list[str]] = [
    ["Margaret Osborne", "27 Mill Lane", "Ludlow, Shropshire"],
    ["9 November 1998"],
    ["Dear Mr Whitcombe,"],
    [
        "Thank you for your letter of 28 October and for the survey of",
        "the old barn. I have read it with care, and I agree that the north",
        "wall must be underpinned before the winter. Your estimate of",
        "3,850 pounds is higher than I had hoped, but I would rather pay",
        "for it now than see the roof come down on the tractor.",
    ],
    [
        "There are two points on which I should like your advice. The oak",
        "beam above the door is split for about half its length. My neigh-",
        "bour, who was a carpenter, thinks that an iron strap would hold it",
        "for another forty years. And the drain behind the wall runs uphill,",
        "or so it looks to me: after rain the water stands there for days.",
    ],
    [
        "Could you come on Thursday the 19th? I shall be at home from",
        "ten o'clock. The lane is being repaired, so please park at the",
        "chapel and walk the last hundred yards.",
    ],
    ["Yours sincerely,"],
    ["Margaret Osborne"],
]

TIMETABLE_TITLE = "Bus 14: Hafenplatz to Universität"
TIMETABLE: list[list[str]] = [
    ["Stop", "Mon to Fri", "Saturday", "Sunday", "Zone"],
    ["Hafenplatz", "06:12", "07:02", "08:02", "110"],
    ["Old Market", "06:17", "07:06", "08:06", "110"],
    ["Königstrasse", "06:23", "07:11", "08:11", "110"],
    ["General Hospital", "06:31", "07:18", "08:18", "121"],
    ["Botanical Garden", "06:36", "07:22", "08:22", "121"],
    ["Universität", "06:42", "07:28", "08:28", "121"],
]
TIMETABLE_NOTE = (
    "Buses run every 12 minutes until 20:00 and every 20 minutes afterwards. On holidays the Sunday times apply. "
    "Bicycles travel free after 9 o'clock."
)

MINUTES_PAGES: list[list[Block]] = [
    [
        ("title", "Minutes of the Allotment Society"),
        (
            "text",
            "Held at the Crown on Tuesday 6 May 2025. Present: J. Adeyemi (chair), L. Novák, S. O'Hara, T. Brandt.",
        ),
        (
            "text",
            "The minutes of the last meeting were approved. The treasurer reported a balance of 2,316.40 pounds. Rents "
            "for plots 7, 19 and 33 are still unpaid; the secretary will write to the tenants once more.",
        ),
    ],
    [],
    [
        (
            "text",
            "It was agreed to buy a second water tank of 1,000 litres and to place it beside the upper gate. Mr Brandt "
            "offered to lay the pipe. The bonfire is set for Saturday 25 October, weather permitting.",
        ),
        ("text", "There being no other business, the meeting closed at 21:40. The next one is on 3 June."),
    ],
]

FORM_TITLE = "Application for a Resident Parking Permit"
FORM_FIELDS: list[tuple[str, str]] = [
    ("Surname:", "Fernández"),
    ("First name:", "Joséphine"),
    ("Date of birth:", "17 August 1984"),
    ("Street and number:", "Lindenweg 48"),
    ("Postcode and town:", "3012 Bern"),
    ("Telephone:", "031 555 01 42"),
    ("Vehicle registration:", "BE 407 615"),
    ("Make and model:", "Renault Kangoo"),
    ("Permit valid from:", "1 September 2025"),
]
FORM_NOTE = (
    "I confirm that the vehicle is registered at my address and that I have no private parking space. I know that a "
    "false statement may lead to a fine of up to 500 francs."
)

SECRET: list[Block] = [
    ("title", "Salary review"),
    ("text", "This page can only be read by those who have the password."),
]

NOT_A_PDF = (
    "<!doctype html>\n<html><head><title>404 Not Found</title></head>\n"
    "<body><h1>Not Found</h1><p>The requested document could not be found on this server.</p></body></html>\n"
)
