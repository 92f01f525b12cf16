test("known types pass as they came", function()
	for _, known in { "application/json", "application/json; charset=utf-8", "application/x-protobuf" } do
		local out = publish { content_type = known }
		expect(out):passes()
		expect(out.content_type):equals(known)
	end
end)

test("old spellings are put right", function()
	expect(publish({ content_type = "text/JSON; charset=utf-8" }).content_type):equals("application/json")
	expect(publish({ content_type = "application/protobuf" }).content_type):equals("application/x-protobuf")
end)

test("message without a type is bytes", function()
	expect(publish({}).content_type):equals("application/octet-stream")
end)

test("other types are rejected", function()
	expect(publish { content_type = "text/html" }):rejects("content type 'text/html' is not accepted here")
	expect(publish { content_type = "" }):rejects()
end)

test("probes are dropped, whatever their type", function()
	expect(publish { content_type = "text/html", headers = { ["x-probe"] = true } }):drops()
end)
