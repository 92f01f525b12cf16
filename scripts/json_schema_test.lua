local GOOD = '{"id": "a-1", "items": [{"sku": "x", "count": 2}]}'

test("bodies that are what the schema says pass", function()
	for _, body in
		{
			GOOD,
			' {"items":[{"count":1,"sku":"\\u00e9\\n\\"quoted\\""}],"id":"1","note":null,"currency":"EUR"}\n',
			'{"id": "1", "note": "", "items": [{"sku": "", "count": 1e3}, {"sku": "b", "count": 12}]}',
		}
	do
		expect(publish { body = body }):passes()
	end
end)

test("mistakes are told with their place", function()
	for body, mistake in
		{
			['{"items": []}'] = "body: 'id' is missing",
			['{"id": 5, "items": []}'] = "body.id: string is expected, not number",
			['{"id": "a b", "items": [{"sku": "x", "count": 2}]}'] = "body.id: it is not spelled as it should be",
			['{"id": "a", "items": []}'] = "body.items: the number of items is below 1",
			['{"id": "a", "items": [{"sku": "x", "count": 2}, {"sku": "y", "count": "2"}]}'] = "body.items[2].count: number is expected, not string",
			['{"id": "a", "items": [{"sku": "x", "count": 0}]}'] = "body.items[1].count: it is below 1",
			['{"id": "a", "items": [{"sku": "x", "count": 1.5}]}'] = "body.items[1].count: a whole number is expected",
			['{"id": "a", "currency": "GBP", "items": [{"sku": "x", "count": 1}]}'] = "body.currency: it is none of EUR, USD",
			['{"id": "a", "colour": 1, "items": [{"sku": "x", "count": 1}]}'] = "body: 'colour' is not known",
			['{"id": null, "items": [{"sku": "x", "count": 1}]}'] = "body.id: string is expected, not null",
			["[]"] = "body: object is expected, not array",
			["true"] = "body: object is expected, not boolean",
		}
	do
		expect(publish { body = body }):rejects(mistake)
	end
end)

test("what is no JSON is rejected with its place", function()
	for _, body in { "", "{", '{"id"}', "{id: 1}", '{"id": "a",}', "01", "1.", "nul", '"\t"', '"\\x"', '"\\u12"', '"open', GOOD .. "x", "[1 2]", "-", "+1" } do
		expect(publish { body = body }):rejects("body is no JSON at byte")
	end
end)

test("bodies that are too deep or too large are rejected", function()
	expect(publish { body = string.rep("[", 100000 // 2) }):rejects("body is nested too deep")
	expect(publish { body = string.rep(" ", 65537) }):rejects("body is larger than 65536 bytes")
end)
