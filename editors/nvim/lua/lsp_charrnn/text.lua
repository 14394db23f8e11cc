-- A suggestion and the text around it: does it still fit, drawing it, inserting it. Same for both ways of asking.
local api = vim.api
local M = {}

---@class lsp_charrnn.Anchor
---@field buf integer
---@field row integer of the suggestion's first character, from 0
---@field col integer in bytes
---@field before string what stands before it in its line
---@field after string what stands behind the cursor

---@param buf integer the current one
---@param row integer
---@param col integer
---@return lsp_charrnn.Anchor? anchor nil if there is no such place
function M.anchor(buf, row, col)
  local line = api.nvim_buf_get_lines(buf, row, row + 1, false)[1]
  if not line or #line < col then return nil end
  local cursor = api.nvim_win_get_cursor(0)
  return { buf = buf, row = row, col = col, before = line:sub(1, col), after = api.nvim_get_current_line():sub(cursor[2] + 1) }
end

--- The rest of a suggestion behind what has been typed of it; nil where anything else has happened to the text around it.
---@param anchor lsp_charrnn.Anchor
---@param text string the suggestion's
---@return string?
function M.rest(anchor, text)
  if api.nvim_get_current_buf() ~= anchor.buf then return nil end
  local cursor = api.nvim_win_get_cursor(0)
  local line = api.nvim_buf_get_lines(anchor.buf, anchor.row, anchor.row + 1, false)[1]
  if not line or line:sub(1, anchor.col) ~= anchor.before then return nil end
  if api.nvim_get_current_line():sub(cursor[2] + 1) ~= anchor.after then return nil end
  -- It fails where the cursor went before the suggestion.
  local ok, typed = pcall(api.nvim_buf_get_text, anchor.buf, anchor.row, anchor.col, cursor[1] - 1, cursor[2], {})
  local prefix = ok and table.concat(typed, '\n') or nil
  return prefix and vim.startswith(text, prefix) and text:sub(#prefix + 1) or nil
end

--- Virtual text shows a tab as two signs: make it as wide as it will be.
local function expanded(line, column)
  local parts = {}
  for piece, tab in line:gmatch('([^\t]*)(\t?)') do
    column = column + vim.fn.strdisplaywidth(piece, column)
    local width = tab == '' and 0 or vim.bo.tabstop - column % vim.bo.tabstop
    column = column + width
    parts[#parts + 1] = piece .. (' '):rep(width)
  end
  return table.concat(parts)
end

--- Draw text behind the cursor, in place of what was drawn in the namespace before.
---@param namespace integer
---@param text string
---@param hint? string shown behind it
function M.draw(namespace, text, hint)
  local cursor = api.nvim_win_get_cursor(0)
  local lines, column = {}, vim.fn.strdisplaywidth(api.nvim_get_current_line():sub(1, cursor[2]))
  for line in vim.gsplit(text, '\n', { plain = true }) do
    lines[#lines + 1] = { { expanded(line, column), 'ComplHint' } }
    column = 0
  end
  if hint then table.insert(lines[#lines], { hint, 'ComplHintMore' }) end
  api.nvim_buf_clear_namespace(0, namespace, 0, -1)
  -- Its colour replaces what is below: combined, 0.10 draws it in that of the bracket before it, where that is matched.
  local first = table.remove(lines, 1)
  local options = { virt_text = first, virt_text_pos = 'inline', virt_lines = lines, hl_mode = 'replace' }
  api.nvim_buf_set_extmark(0, namespace, cursor[1] - 1, cursor[2], options)
end

--- Insert text at the cursor and go behind it, as one step of undo.
---@param text string
function M.insert(text)
  vim.go.undolevels = vim.go.undolevels -- closes the step of what was typed before
  local row, col = unpack(api.nvim_win_get_cursor(0))
  local lines = vim.split(text, '\n', { plain = true })
  api.nvim_buf_set_text(0, row - 1, col, row - 1, col, lines)
  api.nvim_win_set_cursor(0, { row + #lines - 1, (#lines == 1 and col or 0) + #lines[#lines] })
end

return M
